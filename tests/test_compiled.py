"""What decides whether the compiled modules are used, and that nothing else does."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from gateway import compiled

SHOW = "import gateway.app; print(gateway.app.__file__); print(gateway.compiled.description())"


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Path]:
    """A package of one source, and a folder that says it was compiled from it."""
    package, folder = tmp_path / "package", tmp_path / "made"
    package.mkdir()
    folder.mkdir()
    (package / "hot.py").write_text("ANSWER = 42\n")
    manifest = {
        "suffix": EXTENSION_SUFFIXES[0],
        "modules": ["package.hot"],
        "sources": ["hot.py"],
        "digest": compiled.digest(["hot.py"], package),
    }
    (folder / compiled.MANIFEST).write_text(json.dumps(manifest))
    return folder, package


@pytest.fixture
def finders(monkeypatch: pytest.MonkeyPatch) -> Sequence[object]:
    """The import system's finders, put back afterwards; the switch is not set."""
    monkeypatch.delenv(compiled.SWITCH, raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return sys.meta_path


def test_used_if_made_from_these_sources(
    tree: tuple[Path, Path], finders: Sequence[object]
) -> None:
    """The manifest fits the sources: the compiled module is what an import finds."""
    assert compiled.install(*tree) == ""
    finder = finders[0]
    assert isinstance(finder, compiled.Finder)
    spec = finder.find_spec("package.hot", None)
    assert spec is not None
    assert spec.origin == str(tree[0] / ("package.hot" + EXTENSION_SUFFIXES[0]))
    assert finder.find_spec("package.cold", None) is None


def test_not_used_once_a_source_has_changed(
    tree: tuple[Path, Path], finders: Sequence[object]
) -> None:
    """An edit makes the sources run, with a reason that says what to do."""
    before = list(finders)
    (tree[1] / "hot.py").write_text("ANSWER = 43\n")
    assert "make compile" in compiled.install(*tree)
    (tree[1] / "hot.py").unlink()
    assert "make compile" in compiled.install(*tree)
    assert finders == before


def test_not_used_by_another_python(tree: tuple[Path, Path], finders: Sequence[object]) -> None:
    """What was built for another interpreter is left alone."""
    file = tree[0] / compiled.MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), "suffix": ".other.so"}))
    assert compiled.install(*tree) == "it was built for another Python"


def test_not_used_if_not_there_or_broken(
    tree: tuple[Path, Path], finders: Sequence[object], tmp_path: Path
) -> None:
    """No folder, or half a manifest: the sources run."""
    assert compiled.install(tmp_path / "none", tree[1]) == compiled.NOT_BUILT
    (tree[0] / compiled.MANIFEST).write_text('{"suffix": ')
    assert compiled.install(*tree) == compiled.NOT_BUILT


@pytest.mark.parametrize("word", ["off", "OFF", "0", "no", "false"])
def test_the_switch(
    tree: tuple[Path, Path], finders: Sequence[object], monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """GATEWAY_COMPILED=off has the sources run whatever there is."""
    monkeypatch.setenv(compiled.SWITCH, word)
    assert compiled.install(*tree) == "GATEWAY_COMPILED is off"


def test_the_switch_in_a_process() -> None:
    """With it the modules come from the sources."""
    file, said = _show({compiled.SWITCH: "off"})
    assert file.endswith("app.py")
    assert said == "pure Python (GATEWAY_COMPILED is off)"


def test_without_the_switch() -> None:
    """Without it they come from where the description says."""
    file, said = _show({})
    assert file.endswith(EXTENSION_SUFFIXES[0]) == (said == "compiled")


def test_description(monkeypatch: pytest.MonkeyPatch) -> None:
    """People are told what runs, and why."""
    monkeypatch.setattr(compiled, "why_not", "")
    assert compiled.description() == "compiled"
    monkeypatch.setattr(compiled, "why_not", "it is Monday")
    assert compiled.description() == "pure Python (it is Monday)"


def test_every_module_on_the_list_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler's list names sources that exist, and covers what they were made from."""
    monkeypatch.syspath_prepend(str(compiled.PACKAGE.parent / ".ci"))
    compiler = importlib.import_module("compile_gateway")
    sources = [compiler.source_of(module) for module in compiler.MODULES]
    assert [name for name in sources if not (compiled.PACKAGE / name).is_file()] == []
    watched = compiler.imported(sources, compiled.PACKAGE)
    assert set(sources) <= set(watched)
    assert "errors.py" in watched


def _show(environ: dict[str, str]) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if name != compiled.SWITCH}
    shown = subprocess.run(
        [sys.executable, "-c", SHOW],
        capture_output=True,
        text=True,
        check=True,
        env={**clean, **environ},
        timeout=50,
    )
    return shown.stdout.splitlines()


def test_no_name_stands_for_exceptions_of_two_kinds() -> None:
    """In a function of a compiled module: there the name has the class of the first one for good,
    and a TypeError takes the place of the second.
    """
    package = Path(compiled.__file__).parent
    script = ast.parse((package.parent / ".ci" / "compile_gateway.py").read_text())
    [modules] = [
        ast.literal_eval(each.value)
        for each in script.body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "MODULES"
    ]
    found = []
    for module in modules:
        source = package / (module.replace(".", "/") + ".py")
        for function in ast.walk(ast.parse(source.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                kinds: dict[str | None, set[str]] = {}
                for handler in ast.walk(function):
                    if isinstance(handler, ast.ExceptHandler) and handler.type is not None:
                        kinds.setdefault(handler.name, set()).add(ast.unparse(handler.type))
                kinds.pop(None, None)
                found += [
                    (module, function.name, *each) for each in kinds.items() if len(each[1]) > 1
                ]
    assert found == []
