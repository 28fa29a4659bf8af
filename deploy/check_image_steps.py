"""The steps of the Dockerfile, as far as they go without a container engine.

    python deploy/check_image_steps.py [--user nobody]

Reads the Dockerfile for what must hold; builds the wheel as its first stage does; installs it with
the locks, hashes required, into a fresh environment; and runs the command from a read-only folder,
as another user if this one is root.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WHEELS_ONLY = (
    "--require-hashes",
    "--only-binary",
    ":all:",
    "--quiet",
    "--disable-pip-version-check",
)


def instructions(text: str) -> list[tuple[str, str]]:
    """The Dockerfile's instructions: (word in upper case, the rest), continued lines joined."""
    joined = re.sub(r"\\\n", " ", text)
    lines = [line.strip() for line in joined.splitlines()]
    pairs = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    return [(pair[0].upper(), pair[1] if len(pair) > 1 else "") for pair in pairs]


def faults(text: str) -> list[str]:
    """What is wrong with the last stage of a Dockerfile; empty if nothing is."""
    every = instructions(text)
    stages = [index for index, (word, _) in enumerate(every) if word == "FROM"]
    last = dict(every[stages[-1] :])
    bases = [rest for word, rest in every if word == "FROM"]
    number = r"[1-9][0-9]*(:[1-9][0-9]*)?"
    health = last.get("HEALTHCHECK", "").partition("CMD ")[2]
    checks = {
        "there is one stage: build tools would be in the image": len(stages) >= 2,
        "a base image has no tag": all(re.search(r":(?!latest)\S+", base) for base in bases),
        "USER is not a number other than 0": re.fullmatch(number, last.get("USER", "")),
        "STOPSIGNAL is not SIGTERM": last.get("STOPSIGNAL") == "SIGTERM",
        "no port is exposed": "EXPOSE" in last,
        "ENTRYPOINT is not in exec form": _is_exec_form(last.get("ENTRYPOINT", "")),
        "CMD is not in exec form": _is_exec_form(last.get("CMD", "")),
        "there is no HEALTHCHECK in exec form": _is_exec_form(health),
        "ADD may fetch or unpack; COPY does neither": all(word != "ADD" for word, _ in every),
    }
    return [fault for fault, holds in checks.items() if not holds]


def _is_exec_form(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def interpreter(account: pwd.struct_passwd | None) -> str:
    """A Python that can make environments and that the other user may run; else this one."""
    usable = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            subprocess.run([candidate, "-c", usable], check=True, **_become(account))
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    raise SystemExit("no Python 3.11 or later with venv that the other user may run; see --user")


def _become(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """What makes subprocess.run change the user."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def build_stage(work: Path, python: str) -> Path:
    """What the first stage does; the environment that the second one copies."""
    build, runtime = work / "build", work / "lockgate"
    locks = ["-r", ROOT / "requirements.lock"]
    for venv, more in ((runtime, []), (build, ["-r", ROOT / "deploy/requirements-build.lock"])):
        run(python, "-m", "venv", venv)
        run(venv / "bin" / "pip", "install", *WHEELS_ONLY, *locks, *more)
    source = work / "src"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "gateway",
        source / "gateway",
        ignore=shutil.ignore_patterns("__pycache__", "_compiled"),
    )
    (source / ".ci").mkdir()
    for name in ("compile_gateway.py", "wheel_hook.py"):
        shutil.copy(ROOT / ".ci" / name, source / ".ci")
    # The image has a C compiler; this machine may have none, and then the wheel is a pure one.
    check = "import compile_gateway; compile_gateway.check_tools()"
    environ = {**os.environ, "PYTHONPATH": str(source / ".ci")}
    tools = subprocess.run([build / "bin" / "python", "-c", check], check=False, env=environ)
    if tools.returncode == 0:
        os.environ["COMPILE_GATEWAY"] = "1"
    run(
        build / "bin" / "python",
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        work / "dist",
        source,
    )
    wheel = next((work / "dist").glob("*.whl"))
    run(runtime / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    run(runtime / "bin" / "pip", "check")
    run(runtime / "bin" / "pip", "uninstall", "--quiet", "--yes", "pip")
    return runtime


def run_stage(work: Path, runtime: Path, account: pwd.struct_passwd | None) -> None:
    """`lockgate --version` and `lockgate check` on a read-only folder, as somebody else if root."""
    etc = work / "etc"
    shutil.copytree(
        ROOT / "plugins", etc / "plugins", ignore=shutil.ignore_patterns("test_*", "__pycache__")
    )
    shutil.copy(ROOT / "deploy" / "gateway.yaml", etc)
    for path in [etc, *etc.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    environ = {
        "HOME": "/nonexistent",
        "PATH": f"{runtime / 'bin'}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GATEWAY_CONFIG": str(etc / "gateway.yaml"),
        "LOCKGATE_ADMIN_TOKEN": "only-for-this-check",
    }
    if account is not None:
        work.chmod(0o755)
    for arguments in (["--version"], ["check"]):
        print("+ lockgate", *arguments, flush=True)
        subprocess.run(
            [str(runtime / "bin" / "lockgate"), *arguments],
            check=True,
            cwd=etc,
            env=environ,
            timeout=60,
            **_become(account),
        )


def run(*command: str | Path) -> None:
    """Run a step and show it; CalledProcessError if it fails."""
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, timeout=600)


def main() -> int:
    """0 if every step went through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--user", default="nobody", help="whom root becomes for the last step")
    options = parser.parse_args()
    found = faults((ROOT / "Dockerfile").read_text())
    for fault in found:
        print(f"Dockerfile: {fault}", file=sys.stderr)
    if found:
        return 1
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        account = pwd.getpwnam(options.user) if os.geteuid() == 0 else None
        runtime = build_stage(work, interpreter(account))
        run_stage(work, runtime, account)
    print("Every step went through.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
