"""`lockgate chaos` as people and CI meet it: what it prints, its exit codes, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import lockgate
from tests.run.gateway_process import ROOT, clean_environ

CONFIG = """\
version: 1
server: {listen: "127.0.0.1:0", admin: null}
upstreams: {a: {targets: ["https://a.internal"]}}
routes:
  - {name: a.read, match: {path: /a}, upstream: a}
  - {name: limited, match: {path: /l}, upstream: a, rate_limit: {rate: 1000/s}}
  - {name: mtls, match: {path: /m}, upstream: a, auth: {any: [machines]}}
identities: {machines: {type: mtls, subjects: ["*"]}}
"""
SCENARIO = """\
name: short
about: a is down
load: {rate: 60/s}
window: 100ms
phases:
  - {for: 200ms}
  - {for: 200ms, upstream: {a: down}}
  - {for: 5s, until: recovered}
expect: {"*": {max_error_ratio: 100%, only_codes: [connect_failed]}}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A configuration and a scenario that it meets."""
    config, scenario = tmp_path / "gateway.yaml", tmp_path / "short.yaml"
    config.write_text(CONFIG)
    scenario.write_text(SCENARIO)
    return str(config), str(scenario)


def call(*arguments: str) -> Result:
    """The command in this process."""
    return CliRunner().invoke(lockgate, ["chaos", *arguments])


def test_a_table_for_people(files: tuple[str, str]) -> None:
    """A line a route, what was skipped and why, which codes clients saw, no colour; code 0."""
    done = call(files[1], "--config", files[0], "--seed", "7")

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "short: a is down"
    assert lines[1].split() == ["ROUTE", "ANSWERS", "FAILED", "P50", "P99", "UPSTREAM", "RECOVERY",
                                "VERDICT"]  # fmt: skip
    assert lines[2].startswith("a.read")
    assert lines[2].endswith("ok")
    assert "skipped mtls: it asks for a client certificate" in done.stdout
    assert "codes   a.read: connect_failed" in done.stdout
    assert "ok: 2 of 2 route(s) met what is expected" in done.stdout
    assert "seed 7" in done.stdout
    assert "\x1b" not in done.stdout


def test_colours_are_for_terminals_that_want_them(files: tuple[str, str]) -> None:
    """NO_COLOR switches them off where they would be."""
    Path(files[1]).write_text("name: calm\nload: {rate: 50/s}\nphases: [{for: 100ms}]\n")
    arguments = ["chaos", files[1], "--config", files[0]]

    assert "\x1b[" in CliRunner().invoke(lockgate, arguments, color=True).stdout
    plain = CliRunner().invoke(lockgate, arguments, color=True, env={"NO_COLOR": "1"})
    assert plain.exit_code == 0
    assert "\x1b[" not in plain.stdout


def test_json_and_junit_for_machines(files: tuple[str, str], tmp_path: Path) -> None:
    """One JSON object, a report for CI; the missed expectation in both; code 1."""
    strict = tmp_path / "strict.yaml"
    strict.write_text(SCENARIO.replace("short", "strict").replace("100%", "10%"))
    report = tmp_path / "junit.xml"
    done = call(files[1], str(strict), "--config", files[0], "--json", "--junit", str(report))
    found = json.loads(done.stdout)
    suites = ET.parse(report).getroot()

    assert done.exit_code == 1
    assert [(each["scenario"], each["ok"]) for each in found["scenarios"]] == [
        ("short", True), ("strict", False),
    ]  # fmt: skip
    route = found["scenarios"][1]["routes"][0]
    assert route["failed_during"] == 1
    assert route["codes"].keys() == {"connect_failed"}
    assert [check["name"] for check in route["checks"] if not check["ok"]] == ["max_error_ratio"]
    assert [suite.get("name") for suite in suites] == ["short", "strict"]
    assert [(suite.get("failures"), suite.get("skipped")) for suite in suites] == [
        ("0", "1"), ("2", "1"),
    ]  # fmt: skip


def test_one_route_alone(files: tuple[str, str]) -> None:
    """The others are not asked; a name that is none is a mistake of usage."""
    done = call(files[1], "--config", files[0], "--route", "limited", "--json")

    assert [each["route"] for each in json.loads(done.stdout)["scenarios"][0]["routes"]] == [
        "limited"
    ]
    assert call(files[1], "--config", files[0], "--route", "nobody").exit_code == 2


def test_nothing_that_can_be_asked_is_no_success(files: tuple[str, str]) -> None:
    """Every route skipped: CI must not take that for a pass."""
    done = call(files[1], "--config", files[0], "--route", "mtls")

    assert done.exit_code == 1
    assert "no route could be asked" in done.stdout


@pytest.mark.parametrize(
    ("place", "text", "told"),
    [
        (1, SCENARIO.replace("about", "abuot"), "short.yaml:2:1: abuot: unknown key"),
        (1, SCENARIO.replace("{a: down}", "{b: down}"), 'the configuration has no upstream "b"'),
        (0, CONFIG.replace("upstream: a,", "upstream: c,"), "gateway.yaml:"),
    ],
)
def test_what_cannot_be_used_is_refused(
    files: tuple[str, str], place: int, text: str, told: str
) -> None:
    """A bad scenario, one of another configuration, a bad configuration: code 78 and the place."""
    Path(files[place]).write_text(text)

    done = call(files[1], "--config", files[0])

    assert done.exit_code == 78
    assert told in done.stderr
    assert done.stdout == ""


def test_no_scenario_is_a_mistake_of_usage(files: tuple[str, str]) -> None:
    """Code 2."""
    assert call("--config", files[0]).exit_code == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_leaves_no_process(
    files: tuple[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """In the middle of a fault, with a store that hangs: one line, a shell's code, nothing left."""
    Path(files[1]).write_text(
        SCENARIO.replace("{for: 200ms, upstream: {a: down}}", "{for: 60s, store: stall}")
    )
    # Not below tmp_path: a socket's path must be short, and a long one would be put elsewhere.
    temporary = Path(tempfile.mkdtemp(prefix="lockgate-test-", dir="/tmp"))
    command = [sys.executable, "-m", "gateway", "chaos", files[1], "--config", files[0]]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**clean_environ(), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        engine = _engine_of(temporary)
        time.sleep(1.0)  # into the fault, which nothing announces to a pipe
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()

    assert (process.returncode, output) == (code, "")
    assert errors.splitlines() == ["error: interrupted: nothing was judged"]
    assert not Path(f"/proc/{engine}").exists()
    assert list(temporary.iterdir()) == []
    temporary.rmdir()


def _engine_of(folder: Path) -> int:
    """The engine's process id, once there is one."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for lock in folder.glob("lockgate-chaos-*/store/lock"):
            words = lock.read_text().split()
            if len(words) > 1 and Path(f"/proc/{words[1]}").exists():
                return int(words[1])
        time.sleep(0.05)
    raise AssertionError("no engine was started")
