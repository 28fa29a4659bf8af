"""Several workers: one listener, one configuration, and a supervisor that keeps them running."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.run.gateway_process import (
    HUP,
    KILL,
    ROOT,
    TERM,
    WAIT_S,
    GatewayProcess,
    clean_environ,
    config_text,
    gateway,
    until,
)
from tests.run.slow_upstream import slow_upstream


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(text.replace("  listen:", "  workers: 2\n  listen:", 1))
    return path


async def workers(running: GatewayProcess) -> list[dict[str, Any]]:
    return list((await running.config_info())["workers"])


async def all_serve(running: GatewayProcess) -> bool:
    found = await workers(running)
    return len(found) == 2 and all(worker["ready"] for worker in found)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended, though nobody has asked how.
    return ") Z " not in Path(f"/proc/{pid}/stat").read_text()


async def test_a_killed_worker_is_replaced_while_others_serve(tmp_path: Path) -> None:
    """kill -9 of one: requests go on, a successor serves the same generation, TERM ends all."""
    async with gateway(write(tmp_path, config_text())) as running:
        before = {worker["pid"] for worker in await workers(running)}
        assert len(before) == 2
        victim = min(before)

        os.kill(victim, KILL)
        line = await running.line("starting another")
        assert str(victim) in line["message"]
        assert [await running.say() for _ in range(8)] == ["one"] * 8
        await until(lambda: all_serve(running))

        after = await workers(running)
        assert {worker["generation"] for worker in after} == {1}
        assert victim not in {worker["pid"] for worker in after}
        running.signal(TERM)
        assert await running.exit_code() == 0
        assert not any(alive(worker["pid"]) for worker in after)


async def test_a_reload_reaches_all_workers_or_none(tmp_path: Path) -> None:
    """All workers swap to one generation; a broken file leaves all on the old one."""
    config = write(tmp_path, config_text("one"))
    async with gateway(config, "--no-watch") as running:
        write(tmp_path, config_text("two"))
        running.signal(HUP)
        await running.line("reloaded")
        assert {worker["generation"] for worker in await workers(running)} == {2}
        assert {await running.say() for _ in range(12)} == {"two"}

        config.write_text("version: 1\nroutes: [{name: x}]\n")
        running.signal(HUP)
        await running.line("reload refused")
        assert {worker["generation"] for worker in await workers(running)} == {2}
        assert {await running.say() for _ in range(12)} == {"two"}

        # A successor builds what is served, not what lies on the disk.
        victim = (await workers(running))[0]["pid"]
        os.kill(victim, KILL)
        await running.line("starting another")
        await until(lambda: all_serve(running))
        assert {worker["generation"] for worker in await workers(running)} == {2}
        assert {await running.say() for _ in range(12)} == {"two"}


async def test_the_admin_shows_all_workers_as_one(tmp_path: Path) -> None:
    """Requests are added up over the workers, also those of a worker that has died."""
    async with gateway(write(tmp_path, config_text())) as running:

        async def counted() -> float:
            async with httpx.AsyncClient(timeout=WAIT_S) as client:
                text = (await client.get(f"{running.admin}/metrics")).text
            lines = [
                line for line in text.splitlines() if line.startswith("gateway_requests_total")
            ]
            return sum(float(line.rpartition(" ")[2]) for line in lines if 'route="hello"' in line)

        for _ in range(10):
            assert await running.say() == "one"
        assert await counted() == 10

        victim = (await workers(running))[0]["pid"]
        os.kill(victim, KILL)
        await running.line("starting another")
        assert await counted() == 10


async def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    """A stopped worker gives no sign of life; it is killed, and another serves."""
    environ = {"GATEWAY_WORKER__HEARTBEAT": "1s"}
    async with gateway(write(tmp_path, config_text()), environ=environ) as running:
        victim = (await workers(running))[0]["pid"]

        os.kill(victim, signal.SIGSTOP)
        line = await running.line("no sign of life")

        assert str(victim) in line["message"]
        await until(lambda: all_serve(running))
        assert [await running.say() for _ in range(8)] == ["one"] * 8


async def test_workers_go_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """kill -9 of the supervisor: the workers notice, drain and exit."""
    async with gateway(write(tmp_path, config_text())) as running:
        pids = [worker["pid"] for worker in await workers(running)]

        running.signal(KILL)

        await until(lambda: not any(alive(pid) for pid in pids))


async def test_term_drains_all_workers(tmp_path: Path) -> None:
    """A slow request in a worker finishes after TERM, and the exit code is 0."""
    async with slow_upstream() as upstream:
        async with gateway(write_flow(tmp_path, upstream.config())) as running:
            async with httpx.AsyncClient(timeout=WAIT_S) as client:
                slow = asyncio.create_task(client.get(f"{running.url}/slow"))
                await upstream.arrived.wait()

                running.signal(TERM)
                await running.line("draining")
                assert (await client.get(f"{running.admin}/readyz")).status_code == 503
                upstream.release.set()

                assert (await slow).text == "slow"
            assert await running.exit_code() == 0


async def test_second_term_kills_the_workers(tmp_path: Path) -> None:
    """A second TERM does not wait for the slow request; no worker is left behind."""
    async with slow_upstream() as upstream:
        async with gateway(write_flow(tmp_path, upstream.config())) as running:
            pids = [worker["pid"] for worker in await workers(running)]
            async with httpx.AsyncClient(timeout=WAIT_S) as client:
                slow = asyncio.create_task(client.get(f"{running.url}/slow"))
                await upstream.arrived.wait()
                running.signal(TERM)
                await running.line("draining")
                running.signal(TERM)

                assert await running.exit_code() == 1
                with pytest.raises(httpx.TransportError):
                    await slow
            assert not any(alive(pid) for pid in pids)


def write_flow(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(text.replace("server: {", "server: {workers: 2, "))
    return path


async def test_a_plugin_reaches_all_workers(tmp_path: Path) -> None:
    """Workers build plugins too, and a changed plugin file takes effect at the next reload."""
    (tmp_path / "stamp.py").write_text(plugin("one"))
    text = config_text("x").replace("routes:", "plugins: [stamp.py]\nroutes:")
    text += "    plugins: [{use: stamp, with: {}}]\n"
    async with gateway(write(tmp_path, text)) as running:
        assert await stamps(running) == {"one"}

        (tmp_path / "stamp.py").write_text(plugin("two"))
        await running.line("reloaded")

        assert await stamps(running) == {"two"}


def plugin(word: str) -> str:
    return f"""\
from gateway.plugin import Exchange, Guard, PolicyConfig


class Stamp(Guard):
    name = "stamp"

    class Config(PolicyConfig):
        word: str = "{word}"

    def __init__(self, word: str) -> None:
        self.word = word.encode()

    @classmethod
    def build(cls, config, context):
        return cls(config.word)

    async def check(self, exchange: Exchange) -> None:
        exchange.reply_headers = [*exchange.reply_headers, (b"x-stamp", self.word)]
"""


async def stamps(running: GatewayProcess) -> set[str]:
    found = set()
    for _ in range(12):
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            found.add((await client.get(f"{running.url}/hello")).headers["x-stamp"])
    return found


async def test_workers_that_cannot_start_are_one_line_and_code_78(tmp_path: Path) -> None:
    """What only the workers find wrong is shown once, at its place, and nothing is left running."""
    text = config_text().replace("timeouts:", "tls: {cert: a.pem, key: a.key}\n  timeouts:")
    async with gateway(write(tmp_path, text), wait=False) as running:
        assert await running.exit_code() == 78
    [line] = [line for line in running.lines if line["message"].startswith("error:")]
    assert "gateway.yaml:6:" in line["message"]
    assert "a.pem" in line["message"]


async def test_a_purge_reaches_every_worker(tmp_path: Path) -> None:
    """`lockgate cache purge` makes an answer go from the memory of all workers."""
    extra = "defaults: {cache: {ttl: 1h, tags: [t]}}"
    async with gateway(write(tmp_path, config_text(extra=extra))) as running:

        async def hits() -> int:
            found = 0
            for _ in range(12):
                # A connection of its own for each: the kernel spreads them over the workers.
                async with httpx.AsyncClient(trust_env=False) as client:
                    got = await client.get(f"{running.url}/hello")
                    found += "; hit" in got.headers["cache-status"]
            return found

        while await hits() < 12:
            pass
        purge = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "cache", "purge", "--tag", "t",
            "--admin", running.admin.removeprefix("http://"),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=clean_environ(),
        )  # fmt: skip
        said, _ = await purge.communicate()
        assert purge.returncode == 0
        assert said in (b"1 forgotten\n", b"2 forgotten\n")
        assert 10 <= await hits() < 12
