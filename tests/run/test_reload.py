"""Reloading a running gateway: by HUP, by changed files, by the admin API; good and bad."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import httpx
import trustme

from gateway.server.sources import load_configuration
from gateway.settings import load_settings
from tests.run.gateway_process import (
    HUP,
    WAIT_S,
    GatewayProcess,
    config_text,
    gateway,
    port_of,
    until,
)

BROKEN = "version: 1\nroutes: [{name: x}]\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return path


async def says(running: GatewayProcess, word: str) -> None:
    """Wait until the route answers `word`."""

    async def matches() -> bool:
        return await running.say() == word

    await until(matches)


async def test_hup_reloads_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    """HUP takes a good file; a bad one is refused with every issue, logged, shown and counted."""
    config = write(tmp_path, config_text("one"))
    async with gateway(config, "--no-watch") as running:
        config.write_text(config_text("two"))
        running.signal(HUP)
        await running.line("reloaded")
        assert await running.say() == "two"

        config.write_text(BROKEN)
        running.signal(HUP)
        await running.line("reload refused")
        await running.line("routes[0]")

        assert await running.say() == "two"
        info = await running.config_info()
        assert info["generation"] == 2
        assert info["last_reload"]["ok"] is False
        assert len(info["last_reload"]["errors"]) >= 2
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{running.admin}/metrics")).text
            assert (await client.get(f"{running.admin}/readyz")).status_code == 200
        assert 'result="failure"} 1' in metrics
        assert 'result="success"} 1' in metrics


async def test_admin_api_reloads(tmp_path: Path) -> None:
    """POST /api/v1/reload answers with the new generation, or 422 and every error."""
    config = write(tmp_path, config_text("one"))
    async with gateway(config, "--no-watch") as running:
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            url = f"{running.admin}/api/v1/reload"
            same = (await client.post(url)).json()
            config.write_text(config_text("two"))
            good = (await client.post(url)).json()
            config.write_text(BROKEN)
            bad = await client.post(url)
        assert (same["ok"], same["generation"], same["changed"]) == (True, 1, False)
        assert (good["ok"], good["generation"]) == (True, 2)
        assert bad.status_code == 422
        assert bad.json()["errors"][0]["line"] > 0
        assert await running.say() == "two"


async def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """The watcher reloads a changed file, a new included file, and refuses a broken one."""
    (tmp_path / "routes").mkdir()
    text = config_text("one").replace("version: 1", "version: 1\ninclude: [routes/*.yaml]")
    config = write(tmp_path, text)
    async with gateway(config) as running:
        replacement = tmp_path / "new"
        replacement.write_text(text.replace("one", "two"))
        replacement.rename(config)
        await says(running, "two")

        (tmp_path / "routes" / "more.yaml").write_text(
            "routes: [{name: more, match: {path: /more}, respond: {status: 204}}]\n"
        )
        async with httpx.AsyncClient() as client:

            async def served() -> bool:
                return (await client.get(f"{running.url}/more")).status_code == 204

            await until(served)

            config.unlink()
            await running.line("reload refused")
            assert await served()

        config.write_text(text.replace("one", "three"))
        await says(running, "three")


async def test_a_config_map_swap_is_noticed(tmp_path: Path) -> None:
    """Kubernetes swaps the link `..data`; the file itself is never touched."""
    mount = tmp_path / "mount"
    mount.mkdir()

    def publish(version: str) -> None:
        (mount / version).mkdir()
        (mount / version / "gateway.yaml").write_text(config_text(version.strip(".")))
        (mount / "..tmp").symlink_to(version)
        (mount / "..tmp").rename(mount / "..data")

    publish("..one")
    (mount / "gateway.yaml").symlink_to("..data/gateway.yaml")
    async with gateway(mount / "gateway.yaml") as running:
        assert await running.say() == "one"

        publish("..two")
        await says(running, "two")

        publish("..three")
        await says(running, "three")


async def test_touching_a_file_changes_nothing(tmp_path: Path) -> None:
    """A new time on the same content is no reload; a change behind it still is."""
    config = write(tmp_path, config_text("one"))
    async with gateway(config) as running:
        os.utime(config)
        config.write_text(config_text("one"))
        config.write_text(config_text("two"))
        await says(running, "two")

        assert await running.generation() == 2


async def test_polling_notices_as_well(tmp_path: Path) -> None:
    """GATEWAY_WATCH=polling needs no announcements."""
    config = write(tmp_path, config_text("one"))
    async with gateway(config, environ={"GATEWAY_WATCH": "polling"}) as running:
        config.write_text(config_text("two"))
        await says(running, "two")


async def test_what_needs_a_restart_is_refused_by_name(tmp_path: Path) -> None:
    """Another listen address can't be taken over; the answer names the key and its place."""
    config = write(tmp_path, config_text("one"))
    async with gateway(config, "--no-watch") as running:
        config.write_text(config_text("two").replace("  listen: 127.0.0.1:0", "  listen: :0"))
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            answer = await client.post(f"{running.admin}/api/v1/reload")
        assert answer.status_code == 422
        [error] = answer.json()["errors"]
        assert error["path"] == "server.listen"
        assert error["line"] == 3
        assert await running.say() == "one"


async def test_no_request_fails_while_reloading(tmp_path: Path) -> None:
    """Ten reloads under load, one of them broken: every request is answered with 200."""
    config = write(tmp_path, config_text("w0"))
    async with gateway(config, "--no-watch") as running:
        stop = asyncio.Event()
        statuses: list[int] = []

        async def load(client: httpx.AsyncClient) -> None:
            while not stop.is_set():
                statuses.append((await client.get(f"{running.url}/hello")).status_code)

        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            senders = [asyncio.create_task(load(client)) for _ in range(4)]
            for number in range(1, 11):
                config.write_text(BROKEN if number == 5 else config_text(f"w{number}"))
                answer = await client.post(f"{running.admin}/api/v1/reload")
                assert answer.status_code == (422 if number == 5 else 200)
            stop.set()
            await asyncio.gather(*senders)
        assert set(statuses) == {200}
        assert await running.generation() == 10
        assert await running.say() == "w10"


async def test_reloads_at_once_are_done_one_by_one(tmp_path: Path) -> None:
    """Callers that come together all get an answer, and the last content is what serves."""
    config = write(tmp_path, config_text("one"))
    async with gateway(config, "--no-watch") as running:
        config.write_text(config_text("two"))
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            calls = [client.post(f"{running.admin}/api/v1/reload") for _ in range(5)]
            answers = await asyncio.gather(*calls)
        assert {answer.json()["generation"] for answer in answers} == {2}
        assert sum(answer.json().get("changed", True) for answer in answers) >= 1


async def test_a_renewed_certificate_is_used(tmp_path: Path) -> None:
    """New files on disk are shown to the next client; a key that does not fit changes nothing."""
    authority = trustme.CA()
    issue(authority, tmp_path)
    text = config_text("one").replace(
        "timeouts:", "tls: {cert: server.pem, key: server.key}\n  timeouts:"
    )
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with gateway(write(tmp_path, text)) as running:
        assert running.url.startswith("https://")
        first = await certificate(running, trust)

        issue(authority, tmp_path)
        await running.line("reloaded")
        second = await certificate(running, trust)
        assert second != first

        (tmp_path / "server.key").write_text("no key")
        await running.line("reload refused")
        assert await certificate(running, trust) == second


def issue(authority: trustme.CA, folder: Path) -> None:
    """Put a new certificate and its key in place, as one change."""
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(folder / "key.new")
    made.cert_chain_pems[0].write_to_path(folder / "cert.new")
    (folder / "key.new").rename(folder / "server.key")
    (folder / "cert.new").rename(folder / "server.pem")


async def certificate(running: GatewayProcess, trust: ssl.SSLContext) -> bytes:
    """What the listener shows to a client that connects now."""
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(running.url), ssl=trust)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return shown


async def test_allowed_forwarders_come_from_the_environment(tmp_path: Path) -> None:
    """FORWARDED_ALLOW_IPS stands in for trusted_proxies, unless the file states that."""
    config = write(tmp_path, config_text("one"))
    settings = load_settings(config=config, FORWARDED_ALLOW_IPS="10.0.0.0/8")
    server = load_configuration(settings, {}).configuration.gateway.server
    assert [str(network) for network in server.trusted_proxies] == ["10.0.0.0/8"]

    stated = config_text("one").replace("timeouts:", "trusted_proxies: []\n  timeouts:")
    write(tmp_path, stated)
    server = load_configuration(settings, {}).configuration.gateway.server
    assert server.trusted_proxies == []
