"""Which Python `make` builds an environment with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / ".ci" / "pick_python.sh"


def interpreter(directory: Path, name: str, says: str) -> str:
    """A stand-in that prints `says` for its speed, or fails if that is nothing."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{f'echo {says}' if says else 'exit 127'}\n")
    path.chmod(0o755)
    return str(path)


def pick(*names: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), *names], env=environ, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({"a": "300", "b": "200"}, "b"),
        ({"a": "200", "b": "300"}, "a"),
        ({"a": "200", "b": "190"}, "a"),  # as good as equal: the first
        ({"a": "", "b": "900"}, "b"),  # a shim that fails
        ({"a": "no-number", "b": "900"}, "b"),
    ],
)
def test_the_fastest_that_works_is_taken(
    tmp_path: Path, speeds: dict[str, str], chosen: str
) -> None:
    """Failing candidates are passed over, and order decides between equals."""
    found = pick(*(interpreter(tmp_path, name, says) for name, says in speeds.items()))
    assert found.stdout == f"{tmp_path / chosen}\n"


def test_every_directory_of_the_path_is_looked_at(tmp_path: Path) -> None:
    """A shim that stands before a working interpreter of the same name does not hide it."""
    interpreter(tmp_path / "shims", "lockgate-python", "")
    real = interpreter(tmp_path / "bin", "lockgate-python", "100")
    found = pick("lockgate-python", path=f"{tmp_path / 'shims'}:{tmp_path / 'bin'}")
    assert found.stdout == f"{real}\n"


def test_none_that_works_is_an_error_that_helps(tmp_path: Path) -> None:
    """Without a usable interpreter the script fails and says what to install."""
    found = pick(interpreter(tmp_path, "old", ""))
    assert (found.returncode, found.stdout) == (1, "")
    assert "PYTHON=" in found.stderr


def test_a_real_interpreter_is_measured() -> None:
    """The interpreter that runs the tests is usable, so it is found."""
    assert pick(sys.executable).stdout == f"{sys.executable}\n"
