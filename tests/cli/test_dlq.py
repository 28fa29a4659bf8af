"""`lockgate dlq` and `lockgate queues` against a running gateway of two workers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import lockgate
from gateway.cli.pacing import Pacer, read_rate
from tests.run.gateway_process import gateway
from tests.store.servers import VALKEY, serving
from tests.support.letters import REFUSES, Shop, config
from tests.support.scripted import ScriptedUpstream

SERVER = "version: 1\nserver: {listen: 127.0.0.1:0, admin: 127.0.0.1:0, workers: 2}\n"
SERVER += "telemetry: {access_log: null}\n"


async def test_the_commands(tmp_path: Path) -> None:
    """Listed, shown, counted, replayed corrected and at a rate, purged; whatever can't be, said."""
    shop = Shop()
    async with (
        serving(VALKEY, tmp_path / "store") as store,
        ScriptedUpstream(shop) as upstream,
    ):
        file = tmp_path / "gateway.yaml"
        file.write_text(SERVER + config(store.unix, upstream.url, "attempts: 1"))
        shop.statuses = {"/one": REFUSES}
        async with gateway(file) as running, httpx.AsyncClient() as client:
            admin = running.admin.removeprefix("http://")

            async def run(*words: str) -> Result:
                arguments = [*words, "--config", str(file), "--admin", admin]
                return await asyncio.to_thread(CliRunner().invoke, lockgate, arguments)

            async def listed(count: int) -> list[dict[str, object]]:
                while True:
                    found = await run("dlq", "list", "--output", "jsonl")
                    lines = [json.loads(line) for line in found.stdout.splitlines()]
                    if len(lines) == count:
                        return lines
                    await asyncio.sleep(0.05)

            for number in range(4):
                await client.post(f"{running.url}/hooks", json={"n": number})
            events = [str(each["event"]) for each in await listed(4)]
            table = (await run("dlq", "list", "--reason", "permanent")).stdout.splitlines()
            assert table[0].split()[:5] == ["TIME", "ROUTE", "TARGET", "REASON", "STATUS"]
            assert {line.split()[5] if "422" in line else "" for line in table[1:]} == {"-"}
            some = await run("dlq", "list", "--limit", "1", "--output", "json")
            assert [each["event"] for each in json.loads(some.stdout)["letters"]] == events[:1]
            dry = await run("dlq", "replay", "--where", "body.n < 2", "--dry-run")
            assert dry.stdout.splitlines()[-1] == "2 in all"

            fixed = tmp_path / "fixed.json"
            fixed.write_text('{"n": 40}')
            shop.statuses = {}
            done = await run("dlq", "replay", "--event", events[0], "--body", str(fixed))
            assert (done.exit_code, done.stderr.split(",")[0]) == (0, "1 of 1 replayed")
            to = await run("dlq", "replay", "--event", events[1], "--to", "three")
            assert (to.exit_code, "not configured" in to.stderr) == (1, True)
            rated = await run("dlq", "replay", "--until", "0s", "--target", "one", "--rate", "90/s")
            assert (rated.exit_code, rated.stderr.split(",")[0]) == (0, "3 of 3 replayed")
            await listed(0)
            shown = await run("dlq", "show", events[0], "--version", "1")
            assert '{"n": 40}' in shown.stdout
            assert "target one: delivered, epoch 2" in shown.stdout
            assert shop.bodies("/one")[4] == {"n": 40}

            shop.statuses = {"/two": REFUSES}
            await client.post(f"{running.url}/hooks", json={"n": 5})
            await listed(1)
            queues = (await run("queues")).stdout.splitlines()
            assert queues[1].split()[:3] == ["hooks", "one", "0"]
            assert queues[-1].split()[:2] == ["hooks", "1"]
            kept = await run("dlq", "purge", "--all")
            assert (kept.exit_code, "--yes" in kept.stderr) == (1, True)
            purged = await run("dlq", "purge", "--all", "--yes", "--output", "json")
            assert json.loads(purged.stdout) == {"purged": 1}
            for wrong, code in (
                (("dlq", "show", "nothing"), 1),
                (("dlq", "list", "--where", "body."), 1),
                (("dlq", "replay"), 2),
                (("dlq", "replay", "--all", "--route", "x"), 2),
                (("dlq", "replay", "--all", "--rate", "fast"), 2),
                (("dlq", "replay", "--all", "--body", str(fixed)), 2),
            ):
                assert (await run(*wrong)).exit_code == code, wrong


@pytest.mark.parametrize(("rate", "sizes"), [("2/s", [1, 1, 1]), ("4000/s", [500, 500, 500])])
def test_a_rate_is_kept(rate: str, sizes: list[int]) -> None:
    """Small steps, and as long waits as the rate asks for."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pacer = Pacer(*read_rate(rate), lambda: now[0], sleep)
    taken = []
    for _ in sizes:
        taken.append(pacer.take(500))
        pacer.used(taken[-1])
    assert taken == sizes
    count, seconds = read_rate(rate)
    assert now[0] == pytest.approx(sum(sizes[:-1]) / count * seconds)
