"""The commands as their users meet them: what they print, and with which code they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.gateway_process import ROOT, clean_environ, config_text, gateway

ROUTES = """\
version: 1
server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}
upstreams: {orders: {targets: ["http://127.0.0.1:9"]}}
routes:
  - name: orders.read
    match: {path: "/v1/orders/{id}", methods: [GET], headers: {X-Beta: "1"}}
    upstream: orders
    rewrite: {path: "/orders/{id}"}
    timeout: 3s
    access: {allow: [10.0.0.0/8], mode: report}
    headers: {request: {set: {Authorization: "Bearer ${env:TOKEN}"}}}
  - {name: off, match: {path: /off}, respond: {status: 204}, enabled: false}
"""


def lockgate(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT,
        env={**clean_environ(), **environ},
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.fixture
def routes(tmp_path: Path) -> str:
    """A configuration with a secret in it, and one route that is switched off."""
    path = tmp_path / "gateway.yaml"
    path.write_text(ROUTES)
    return str(path)


def test_check_accepts_a_good_file_and_shows_warnings(routes: str) -> None:
    """Code 0, one line that says so, and the secret nowhere."""
    done = lockgate("check", routes, TOKEN="hush-hush")

    assert done.returncode == 0
    assert done.stdout.startswith("ok: 1 route(s)")
    assert "hush-hush" not in done.stdout + done.stderr


def test_check_reports_every_error_as_json(tmp_path: Path) -> None:
    """Code 78, and each error with its place."""
    path = tmp_path / "gateway.yaml"
    path.write_text("version: 1\nsurprise: 1\nroutes:\n  - {name: a, mtch: {path: /}}\n")

    done = lockgate("check", str(path), "--format", "json")

    found = json.loads(done.stdout)
    assert done.returncode == 78
    assert found["ok"] is False
    assert {error["line"] for error in found["errors"]} == {2, 4}


def test_check_finds_what_shows_only_when_building(tmp_path: Path) -> None:
    """A certificate that is not there is refused by check too, at the line that names it."""
    path = tmp_path / "gateway.yaml"
    path.write_text("version: 1\nserver:\n  tls: {cert: a.pem, key: a.key}\n")

    done = lockgate("check", str(path))

    assert done.returncode == 78
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {path}:3:")
    assert "a.pem" in error


def test_check_creates_no_log_file(tmp_path: Path) -> None:
    """Looking at a configuration leaves nothing behind."""
    path = tmp_path / "gateway.yaml"
    path.write_text("version: 1\ntelemetry: {access_log: {to: log/access.jsonl}}\n")

    assert lockgate("check", str(path)).returncode == 0
    assert [each.name for each in tmp_path.iterdir()] == ["gateway.yaml"]


def test_schema_is_json_schema() -> None:
    """The schema goes to stdout whole, and needs no configuration."""
    schema = json.loads(lockgate("schema").stdout)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "routes" in schema["properties"]


def test_routes_are_a_table_or_json(routes: str) -> None:
    """A line a route, those switched off included; no colour codes where nobody looks."""
    table = lockgate("routes", "--config", routes, TOKEN="t")
    data = json.loads(lockgate("routes", "--config", routes, "--format", "json", TOKEN="t").stdout)

    lines = table.stdout.splitlines()
    assert lines[0].split() == ["ROUTE", "METHODS", "HOST", "PATH", "TO", "POLICIES"]
    assert lines[1].split()[:5] == ["orders.read", "GET", "*", "/v1/orders/{id}", "orders"]
    assert "disabled" in lines[2]
    assert "\x1b" not in table.stdout
    assert [route["name"] for route in data] == ["orders.read", "off"]


def test_explain_shows_route_chain_and_target(routes: str) -> None:
    """Everything on the way of a request, with references in place of secrets."""
    done = lockgate(
        "explain", "GET", "/v1/orders/7?a=b", "-H", "X-Beta: 1", "--config", routes,
        TOKEN="hush-hush",
    )  # fmt: skip

    assert done.returncode == 0
    assert "orders.read" in done.stdout
    assert "id = 7" in done.stdout
    assert "/orders/7?a=b" in done.stdout
    assert "[report only]" in done.stdout
    assert "${env:TOKEN}" in done.stdout
    assert "hush-hush" not in done.stdout


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [("GET", "/v1/orders/7", 404), ("POST", "/v1/orders/7", 405), ("GET", "/off", 404)],
)
def test_explain_says_why_not(routes: str, method: str, url: str, status: int) -> None:
    """A request that no route takes is explained as well."""
    fields = ["-H", "X-Beta: 1"] if method == "POST" else []
    done = lockgate(
        "explain", method, url, *fields, "--config", routes, "--format", "json", TOKEN="t"
    )

    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["status"] == status
    assert found.get("allow", ["GET"])[0] == "GET"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run", "--http", "fast"],
        ["explain", "GET", "nowhere"],
        ["explain", "GET", "/", "-H", "no colon"],
        ["check", "a.yaml", "--config", "b.yaml"],
    ],
)
def test_wrong_usage_is_code_two(arguments: list[str]) -> None:
    """What click can tell from the command line alone."""
    done = lockgate(*arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "check", "routes"])
def test_a_missing_file_is_one_line_and_code_78(command: str, tmp_path: Path) -> None:
    """The file is named, in one line."""
    done = lockgate(command, "--config", str(tmp_path / "none.yaml"))

    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "none.yaml" in done.stderr


def test_a_wrong_setting_is_code_78() -> None:
    """A setting that can't be used is named."""
    done = lockgate("run", GATEWAY_DRAIN__DELAY="5")

    assert done.returncode == 78
    assert "GATEWAY_DRAIN__DELAY" in done.stderr


def test_version_and_help_import_no_command() -> None:
    """The list of commands is shown without loading the server."""
    code = (
        "import sys; sys.argv = ['lockgate', '--help']\n"
        "from gateway.cli.main import lockgate\n"
        "lockgate.main(standalone_mode=False)\n"
        "assert 'uvicorn' not in sys.modules, 'uvicorn'\n"
        "assert 'pydantic' not in sys.modules, 'pydantic'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50
    )

    assert done.returncode == 0, done.stderr
    for command in ("run", "check", "schema", "routes", "explain", "healthcheck", "reload"):
        assert command in done.stdout
    assert lockgate("--version").stdout.startswith("lockgate, version ")


def test_run_imports_the_gateway_with_the_collector_off() -> None:
    """A start makes only what it keeps; looking for garbage in it took a seventh of its time."""
    code = (
        "import gc, sys\n"
        "import gateway.cli.run\n"
        "assert 'pydantic' not in sys.modules, 'pydantic'\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'pydantic': print('collector on:', gc.isenabled()); sys.exit(0)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "gateway.cli.run.command(['--config', 'none.yaml'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50
    )

    assert done.stdout == "collector on: False\n", done.stderr


async def test_healthcheck_and_reload_against_a_running_gateway(tmp_path: Path) -> None:
    """Over a unix socket with a token: ready, a reload, a refused one, and nobody there."""
    path = tmp_path / "gateway.yaml"
    text = config_text("one").replace(
        "admin: 127.0.0.1:0", "admin: unix:admin.sock\n  admin_token: ${env:ADMIN_SECRET}"
    )
    path.write_text(text)
    options = ("--config", str(path))
    environ = {"ADMIN_SECRET": "correct"}
    async with gateway(path, "--no-watch", environ=environ) as running:
        assert lockgate("healthcheck", *options).returncode == 0

        path.write_text(text.replace("one", "two"))
        good = lockgate("reload", *options, **environ)
        assert (good.returncode, good.stdout) == (0, "generation 2\n")

        by_file = tmp_path / "token"
        by_file.write_text("correct\n")
        same = lockgate("reload", *options, GATEWAY_ADMIN_TOKEN_FILE=str(by_file))
        assert (same.returncode, same.stdout) == (0, "generation 2 (nothing has changed)\n")
        wrong = lockgate("reload", *options, GATEWAY_ADMIN_TOKEN="wrong")
        assert wrong.returncode == 1
        assert "401" in wrong.stderr

        # The commands find the gateway although the file is broken at the moment.
        path.write_text(text + "surprise: 1\n")
        bad = lockgate("reload", *options, **environ)
        assert bad.returncode == 78
        assert "surprise" in bad.stderr
        assert "generation 2 keeps serving" in bad.stderr
        assert lockgate("healthcheck", *options).returncode == 0

        running.process.terminate()
        await running.exit_code()
    gone = lockgate("healthcheck", *options)
    assert gone.returncode == 1
    assert gone.stderr.count("\n") == 1


def test_no_color_wins_over_a_terminal(tmp_path: Path) -> None:
    """On a terminal errors are coloured, unless NO_COLOR says otherwise."""
    pty = pytest.importorskip("pty")
    shown = {}
    for environ in ({}, {"NO_COLOR": "1"}):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "gateway", "check", str(tmp_path / "none.yaml")],
            cwd=ROOT,
            env={**clean_environ(), **environ},
            stdout=theirs,
            stderr=theirs,
        ) as process:
            process.wait(50)
        os.close(theirs)
        shown[bool(environ)] = os.read(ours, 4096)
        os.close(ours)

    assert b"\x1b[" in shown[False]
    assert b"\x1b[" not in shown[True]


def test_a_new_key_fits_its_entry() -> None:
    """The key is shown once; the entry holds its hash, and `key hash` makes the same of the key."""
    done = lockgate("key", "new", "--consumer", "billing-bot", "--scope", "orders:read", "--json")
    made = json.loads(done.stdout)
    hashed = subprocess.run(
        [sys.executable, "-m", "gateway", "key", "hash"],
        cwd=ROOT, env=clean_environ(), input=made["key"] + "\n", capture_output=True, text=True,
        timeout=50,
    )  # fmt: skip
    shown = lockgate("key", "new", "--consumer", "billing-bot")

    assert done.returncode == shown.returncode == hashed.returncode == 0
    assert (made["consumer"], made["scopes"]) == ("billing-bot", ["orders:read"])
    assert hashed.stdout == made["hash"] + "\n"
    assert '- {"consumer": "billing-bot", "hash": "sha256:' in shown.stdout
    assert made["key"] not in shown.stdout


@pytest.mark.parametrize(
    "arguments", [("key", "new"), ("key", "new", "--consumer", "a b"), ("key", "hash")]
)
def test_keys_that_can_not_be_made(arguments: tuple[str, ...]) -> None:
    """Nothing to make it for, or of: usage, code 2."""
    assert lockgate(*arguments).returncode == 2


@pytest.mark.parametrize("arguments", [(), ("--tag", "a", "--all"), ("--route", "")])
def test_cache_purge_wants_to_know_what(arguments: tuple[str, ...]) -> None:
    """Wrong usage, code 2, unless exactly one thing is named."""
    done = lockgate("cache", "purge", *arguments)
    assert done.returncode == 2
    assert "exactly one" in done.stderr


def test_cache_purge_of_nobody(tmp_path: Path) -> None:
    """Code 1 and one line if no gateway can be reached."""
    done = lockgate("cache", "purge", "--all", "--admin", f"unix:{tmp_path}/none")
    assert done.returncode == 1
    assert done.stderr.startswith("error: can't reach the admin listener")


def test_moments_are_a_while_ago_or_a_date() -> None:
    """Anything else is wrong usage, code 2, and says what is expected."""
    done = lockgate("audit", "export", "--since", "yesterday")
    assert done.returncode == 2
    assert "write 2h (ago), 2026-12-31 or 2026-12-31T12:00:00Z" in done.stderr
