"""`lockgate schedules` and `lockgate streams`, asked of a running gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner

from gateway.cli.main import lockgate
from tests.run.gateway_process import gateway as gateway_process
from tests.store.servers import VALKEY, serving


async def printed(*arguments: str) -> str:
    """What the command prints; run here, because another interpreter takes a second."""
    done = await asyncio.to_thread(CliRunner().invoke, lockgate, arguments)
    assert done.exit_code == 0, done.output
    return done.output


async def test_schedules_and_streams(tmp_path: Path) -> None:
    """A table for people, JSON for programs."""
    async with serving(VALKEY, tmp_path / "store") as server:
        file = tmp_path / "gateway.yaml"
        file.write_text(f"""\
version: 1
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
store: {{url: "{server.unix}", timeout: 5s}}
upstreams: {{api: {{targets: ["http://127.0.0.1:9"], timeout: 5s}}}}
routes:
  - {{name: sync, match: {{path: /sync}}, upstream: api, delivery: {{}}}}
schedules:
  nightly: {{cron: "0 2 * * *", timezone: Europe/Madrid, route: sync}}
streams:
  erp: {{url: "{server.unix}", stream: erp.changes, route: sync}}
""")
        async with gateway_process(file) as running:
            admin = ("--admin", running.admin.removeprefix("http://"))
            table = await printed("schedules", *admin)
            data = await printed("schedules", *admin, "--output", "json")
            streams = await printed("streams", *admin)

    assert "nightly   0 2 * * *  sync" in table
    (row,) = json.loads(data)
    assert (row["timezone"], row["missed"], row["fired"]) == ("Europe/Madrid", "one", None)
    assert "T02:00:00+0" in row["next"]
    assert "erp.changes  lockgate  sync   reading  0" in streams
