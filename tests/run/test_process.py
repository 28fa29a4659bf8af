"""The life of one process: it starts, says where it listens, drains, and tells why it ended."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx

from tests.run.gateway_process import INT, TERM, WAIT_S, config_text, gateway, port_of, until
from tests.run.slow_upstream import slow_upstream


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return path


async def test_serves_and_ends_with_code_zero_after_term(tmp_path: Path) -> None:
    """The ready lines name both listeners, traffic flows, and TERM on an idle gateway is 0."""
    async with gateway(write(tmp_path, config_text())) as running:
        assert await running.say() == "one"
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{running.admin}/readyz")).status_code == 200
            routes = (await client.get(f"{running.admin}/api/v1/routes")).json()["routes"]
        assert [route["name"] for route in routes] == ["hello"]

        running.signal(TERM)

        assert await running.exit_code() == 0
        messages = [line["message"] for line in running.lines]
        assert messages[-2:] == ["draining", "drained"]


async def test_runs_on_stock_uvicorn(tmp_path: Path) -> None:
    """`--http stock` serves the same application through uvicorn's own protocol."""
    async with gateway(write(tmp_path, config_text()), "--http", "stock") as running:
        assert await running.say() == "one"

        running.signal(TERM)

        assert await running.exit_code() == 0


async def test_term_lets_a_request_in_flight_finish(tmp_path: Path) -> None:
    """Readiness goes first, the listener closes, the slow answer arrives, the code is 0."""
    async with slow_upstream() as upstream:
        async with gateway(write(tmp_path, upstream.config())) as running:
            async with httpx.AsyncClient(timeout=WAIT_S) as client:
                slow = asyncio.create_task(client.get(f"{running.url}/slow"))
                await upstream.arrived.wait()

                running.signal(TERM)
                await running.line("draining")

                assert (await client.get(f"{running.admin}/readyz")).status_code == 503
                assert (await client.get(f"{running.admin}/livez")).status_code == 200
                await until(lambda: refuses(running.url))
                upstream.release.set()
                answer = await slow
            assert (answer.status_code, answer.text) == (200, "slow")
            assert answer.headers["connection"] == "close"
            assert await running.exit_code() == 0


async def test_second_signal_cuts_what_is_in_flight(tmp_path: Path) -> None:
    """A second INT does not wait for the slow request, and says so with code 1."""
    async with slow_upstream() as upstream:
        async with gateway(write(tmp_path, upstream.config())) as running:
            async with httpx.AsyncClient(timeout=WAIT_S) as client:
                slow = asyncio.create_task(client.get(f"{running.url}/slow"))
                await upstream.arrived.wait()

                running.signal(INT)
                await running.line("draining")
                running.signal(INT)

                assert await running.exit_code() == 1
                outcome = (await asyncio.gather(slow, return_exceptions=True))[0]
            cut = isinstance(outcome, httpx.TransportError)
            assert cut or (isinstance(outcome, httpx.Response) and outcome.status_code >= 500)


async def test_drain_gives_up_after_its_timeout(tmp_path: Path) -> None:
    """A request that never ends is cut when the drain's time is over; the code stays 0."""
    async with slow_upstream() as upstream:
        text = upstream.config().replace("drain: 20s", "drain: 300ms")
        async with gateway(write(tmp_path, text)) as running:
            async with httpx.AsyncClient(timeout=WAIT_S) as client:
                slow = asyncio.create_task(client.get(f"{running.url}/slow"))
                await upstream.arrived.wait()

                running.signal(TERM)

                assert await running.exit_code() == 0
                await asyncio.gather(slow, return_exceptions=True)


async def test_drain_delay_keeps_the_listener_open(tmp_path: Path) -> None:
    """With a delay, new requests are served after readiness went, each on its last connection."""
    config = write(tmp_path, config_text())
    async with gateway(config, environ={"GATEWAY_DRAIN__DELAY": "30s"}) as running:
        running.signal(TERM)
        await running.line("draining")

        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{running.admin}/readyz")).status_code == 503
            answer = await client.get(f"{running.url}/hello")
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"


async def test_port_in_use_is_one_line_and_code_three(tmp_path: Path) -> None:
    """Another listener on the port is named in one line, and nothing was started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = config_text().replace("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}")
        async with gateway(write(tmp_path, text), wait=False) as running:
            assert await running.exit_code() == 3
    [line] = running.lines
    assert line["message"].startswith(f"error: can't listen on 127.0.0.1:{port} (server.listen)")


async def test_port_in_use_is_noticed_with_workers(tmp_path: Path) -> None:
    """Sharing a port among workers does not let two gateways share one."""
    async with gateway(write(tmp_path, config_text())) as first:
        port = port_of(first.url)
        text = config_text().replace(
            "listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}\n  workers: 2"
        )
        second = tmp_path / "second.yaml"
        second.write_text(text)
        async with gateway(second, wait=False) as running:
            assert await running.exit_code() == 3


async def test_bad_configuration_is_code_78_with_every_error(tmp_path: Path) -> None:
    """Both mistakes are shown with their places, and no traceback."""
    text = config_text().replace("path: /hello", "pth: /hello") + "surprise: 1\n"
    async with gateway(write(tmp_path, text), wait=False) as running:
        assert await running.exit_code() == 78
    shown = "".join(line["message"] for line in running.lines)
    assert "pth" in shown
    assert "surprise" in shown
    assert "gateway.yaml:" in shown
    assert "Traceback" not in shown


async def test_unreadable_certificate_is_code_78(tmp_path: Path) -> None:
    """A certificate that is not there is a wrong configuration, in one line."""
    text = config_text(extra="").replace(
        "timeouts:", "tls: {cert: nowhere.pem, key: nowhere.key}\n  timeouts:"
    )
    async with gateway(write(tmp_path, text), wait=False) as running:
        assert await running.exit_code() == 78
    [line] = running.lines
    assert "nowhere.pem" in line["message"]


async def test_listens_on_unix_sockets(tmp_path: Path) -> None:
    """Public and admin listener on unix sockets; a stale file is replaced, ours is removed."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "public.sock"))
    stale.close()
    text = config_text().replace("listen: 127.0.0.1:0", "listen: unix:public.sock")
    text = text.replace("admin: 127.0.0.1:0", "admin: unix:admin.sock")
    async with gateway(write(tmp_path, text)) as running:
        for name, path in (("public", "/hello"), ("admin", "/readyz")):
            transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / f"{name}.sock"))
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.get(f"http://localhost{path}")).status_code == 200

        running.signal(TERM)

        assert await running.exit_code() == 0
        assert not (tmp_path / "public.sock").exists()


def refuses(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port_of(url))) != 0
