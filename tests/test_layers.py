"""The import rules: layers go down, policies are strangers, each library has one home."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GATEWAY = ROOT / "gateway"

# A library that is named here is imported below these paths and nowhere else, so that what it does
# can be replaced, and its exceptions translated, in one place.
HOMES = {
    "click": ("cli",),
    "httpx": ("control",),
    "jwt": ("policies/auth",),
    "hiredis": ("store",),
    "jsonschema_rs": ("contracts/schema.py",),
    "prometheus_client": ("observability",),
    "redis": ("store",),
    "starlette": ("admin",),
    "uvicorn": ("server", "cli"),
    "uvloop": ("server", "cli"),
    "watchfiles": ("server",),
    "yaml": ("config", "cli"),
}
MAX_LINES = 400


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


@cache
def imported(path: Path) -> frozenset[str]:
    """The dotted names of the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return frozenset(found)


def test_import_contracts() -> None:
    """Every contract in pyproject.toml holds."""
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program is not None, "import-linter is a development dependency"
    told = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("library", HOMES)
def test_library_has_one_home(library: str) -> None:
    """A library is imported in its own part of the gateway alone."""
    homes = tuple(GATEWAY / home for home in HOMES[library])
    strangers = [
        str(path.relative_to(ROOT))
        for path in modules(GATEWAY)
        if library in {name.partition(".")[0] for name in imported(path)}
        and not any(path.is_relative_to(home) for home in homes)
    ]

    assert strangers == []


def test_plugins_import_only_the_plugin_module() -> None:
    """What ships as an example needs nothing of the gateway but gateway.plugin."""
    for path in modules(ROOT / "plugins"):
        ours = {name for name in imported(path) if name.partition(".")[0] == "gateway"}

        assert ours <= {"gateway.plugin"}, path


def test_nothing_imports_the_tools_around_it() -> None:
    """The package stands without tests, benchmarks and examples."""
    for path in modules(GATEWAY):
        roots = {name.partition(".")[0] for name in imported(path)}

        assert roots.isdisjoint({"tests", "bench", "plugins", "pytest"}), path


@pytest.mark.parametrize("folder", ["gateway", "bench", "plugins", "config", "deploy"])
def test_files_stay_readable(folder: str) -> None:
    """No file is longer than 400 lines, and each says at its top what it is for."""
    for path in modules(ROOT / folder):
        text = path.read_text()

        assert len(text.splitlines()) <= MAX_LINES, path
        assert ast.get_docstring(ast.parse(text)), f"{path} has no module docstring"
