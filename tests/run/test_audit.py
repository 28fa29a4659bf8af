"""The audit's commands against a gateway of two workers, with the embedded store."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import httpx

from tests.run.gateway_process import ROOT, clean_environ, gateway
from tests.support.scripted import ScriptedUpstream, answer, respond

CONFIG = """\
version: 1
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0", workers: 2}}
telemetry: {{access_log: null}}
store: {{url: embedded, data: {data}}}
upstreams:
  api: {{targets: ["{upstream}"]}}
routes:
  - name: events
    match: {{path: /events, methods: [POST]}}
    upstream: api
    delivery: {{}}
"""


async def lockgate(*arguments: str) -> tuple[int | None, str, str]:
    """The exit code of a command, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=ROOT, env=clean_environ(),
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_trace_and_export(tmp_path: Path) -> None:
    """A transaction's steps with its outcome; the same as JSON lines; nothing of an unknown one."""
    async with ScriptedUpstream(answer(respond(b"ok"))) as upstream:
        text = CONFIG.format(data=tmp_path / "store", upstream=upstream.url)
        file = tmp_path / "gateway.yaml"
        file.write_text(text)
        async with gateway(file) as running:
            async with httpx.AsyncClient(trust_env=False, base_url=running.url) as client:
                headers = {"X-Correlation-ID": "flow-1", "Prefer": "wait=10"}
                done = await client.post("/events", json={}, headers=headers)
                assert done.json()["state"] == "delivered"
            admin = ("--admin", running.admin.removeprefix("http://"))
            traced, exported, unknown = await asyncio.gather(
                lockgate("trace", "flow-1", *admin),
                lockgate("audit", "export", "--since", "1h", "--route", "events", *admin),
                lockgate("trace", "flow-2", *admin),
            )
    assert traced[0] == 0, traced
    assert "attempt 1 to api: delivered 200" in traced[1]
    assert "is now: api delivered" in traced[1]
    kinds = [json.loads(line)["kind"] for line in exported[1].splitlines()]
    assert (exported[0], kinds) == (0, ["accepted", "attempt"])
    assert unknown[0] == 1
    assert "nothing is known of this correlation id" in unknown[2]
