"""The Starlette + httpx proxy of `starlette_httpx.py`, run from the benchmarks' environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bench.peers.peer import Command, Job, Peer

PROGRAM = Path(__file__).with_name("starlette_httpx.py")
_VERSION = "import httpx, starlette; print(starlette.__version__, httpx.__version__, sep=' + ')"


def peer(venv: Path) -> Peer:
    """Starlette in front, httpx behind."""
    python = venv / "bin" / "python"
    name = "starlette+httpx"
    if not python.exists():
        return Peer(name, "", f"{venv} is not set up", lambda _: Command([]), logs=False)
    told = subprocess.run([python, "-c", _VERSION], check=False, capture_output=True, timeout=30)
    if told.returncode:
        return Peer(
            name, "", f"httpx is not installed in {venv}", lambda _: Command([]), logs=False
        )
    return Peer(
        name, told.stdout.decode().strip(), "", lambda job: _prepare(job, python), logs=False
    )


def _prepare(job: Job, python: Path) -> Command:
    environ = {"UPSTREAM": f"http://127.0.0.1:{job.upstream_port}"}
    return Command([python, PROGRAM, str(job.port)], environ)
