"""The measuring instruments, not the measurements: nothing here asserts on speed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from bench import load, processes, report
from bench.__main__ import PARTS, arguments
from bench.peers import caddy, envoy, httpx_proxy, lockgate, nginx
from bench.peers.lockgate import Setup
from bench.peers.peer import Job, Peer, serving

ONE_CORE = frozenset({min(os.sched_getaffinity(0))})


def test_item_is_one_kilobyte_of_json() -> None:
    """What upstreams answer is JSON of exactly 1,024 bytes."""
    assert len(nginx.item()) == 1024
    assert json.loads(nginx.item())["id"] == "1001"


def test_wrk_figures_are_read() -> None:
    """The line that load.lua prints becomes numbers, and every kind of error counts as failed."""
    line = (
        '{"requests": 10, "microseconds": 2000000, "bytes": 1, "connect": 1, "read": 2, "write": 3,'
        ' "status": 4, "timeout": 5, "p50_us": 6, "p99_us": 7}'
    )
    seen = load.parse(f"Running 2s test\n{line}\n")

    assert (seen.requests, seen.per_second, seen.failed, seen.p99_us) == (10, 5.0, 15, 7)


def test_no_figures_are_an_error() -> None:
    """A run of wrk that printed nothing useful is not taken for zero."""
    with pytest.raises(ValueError, match="unable to connect"):
        load.parse("unable to connect")


def test_verdicts() -> None:
    """A figure at the limit is ok; one beyond it is a miss."""
    assert report.at_most("cpu", 0.6, 0.6, " x").verdict == "ok"
    assert report.at_most("cpu", 0.61, 0.6, " x").verdict == "MISSED"
    assert report.at_least("speed", 0.5, 0.5, " x").verdict == "ok"
    assert report.at_least("speed", 0.49, 0.5, " x").verdict == "MISSED"


def test_table_and_json(tmp_path: Path) -> None:
    """The table aligns its columns; the JSON has the machine, the versions and raw readings."""
    rows = [
        report.at_most("a", 1.0, 2.0, " s", seconds=report.Sample((1.0, 3.0))),
        report.not_judged("longer", "<= 2 s", "wrk is not installed"),
    ]
    report.write(tmp_path / "out.json", rows, {"nginx": "1.22"})
    written = json.loads((tmp_path / "out.json").read_text())

    assert report.table(rows).splitlines()[2].split() == ["a", "<=", "2.00", "s", "1.00", "s", "ok"]
    assert written["rows"][0]["readings"]["seconds"] == [1.0, 3.0]
    assert written["machine"].keys() >= {"date", "cpu", "python", "command"}
    assert written["versions"] == {"nginx": "1.22"}


def test_child_is_accounted_and_stopped(tmp_path: Path) -> None:
    """CPU time and memory of a whole process tree are seen, and stopping ends it."""
    spin = "while True: pass"
    work = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"
    child = processes.start(
        "busy", [sys.executable, "-c", work], cores=ONE_CORE, log=tmp_path / "log"
    )
    try:
        processes.wait_until(lambda: len(processes.process_tree(child.pid)) == 2, child)
        before = child.cpu_seconds()
        processes.wait_until(lambda: child.cpu_seconds() > before, child)

        assert child.resident_bytes() > 1_000_000
    finally:
        os.killpg(child.pid, 9)
        child.stop()
    assert not child.alive()


def test_child_that_dies_says_why(tmp_path: Path) -> None:
    """A proxy that can't start is reported with what it printed."""
    program = [sys.executable, "-c", "raise SystemExit('no such port')"]
    child = processes.start("broken", program, cores=ONE_CORE, log=tmp_path / "log")

    with pytest.raises(RuntimeError, match="no such port"):
        processes.wait_until(lambda: False, child)


def test_many_routes_are_spread(tmp_path: Path) -> None:
    """The 10,000 routes are all there, and what is asked for lies all over them."""
    job = Job(1, 2, tmp_path, tmp_path / "access.log")
    setup = Setup(routes=10_000)

    assert lockgate.config_text(job, setup, 3).count("- name:") == 10_000
    assert setup.paths()[0] == "/v1/service0/items/0"
    assert setup.paths()[-1] == "/v1/service9000/items/9000"


@pytest.mark.parametrize("module", [envoy, caddy, httpx_proxy])
def test_missing_peer_is_named(module: object, tmp_path: Path) -> None:
    """A peer that is not installed says so instead of failing."""
    peer: Peer = module.peer(tmp_path)  # type: ignore[attr-defined]

    assert str(tmp_path) in peer.missing


def test_parts_can_be_chosen() -> None:
    """`--only a,b` and plain names mean the same; an unknown part is refused."""
    assert arguments(["--only", "idle,start"]).parts == ["idle", "start"]
    assert arguments(["idle"]).parts == ["idle"]
    with pytest.raises(SystemExit):
        arguments(["--only", "everything"])
    assert {"throughput", "routes", "bodies", "idle", "start", "workers", "reloads"} <= PARTS.keys()


@pytest.mark.skipif(nginx.find() is None, reason="nginx is not installed")
def test_nginx_answers_through_itself(tmp_path: Path) -> None:
    """The upstream and the proxy in front of it come up and write a JSON access log."""
    port = processes.free_port()
    command = nginx.upstream_command(port, tmp_path / "upstream")
    upstream = processes.start(
        "upstream", command.argv, cores=ONE_CORE, log=tmp_path / "upstream.log"
    )
    with processes.running(upstream, lambda: processes.http_status(port, "/item") == 200):
        with serving(nginx.peer(), port, tmp_path, ONE_CORE) as (_, job):
            assert processes.http_status(job.port, "/item") == 200
        line = job.access_log.read_text().splitlines()[0]

    assert json.loads(line)["status"] == 200


@pytest.mark.skipif(shutil.which("wrk") is not None, reason="wrk is installed")
def test_missing_wrk_is_named() -> None:
    """Without wrk there is a sentence that says so."""
    assert "wrk" in load.missing()
