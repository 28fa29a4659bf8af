"""Whether the hot modules run compiled, and where the import system finds them.

`make` compiles the modules that a request goes through, from these same sources, into the folder
`_compiled` beside this file; `.ci/compile_gateway.py` does it. They are used if they were made from
exactly the sources that are here, by name and content, and for this interpreter. Otherwise, or with
`GATEWAY_COMPILED=off`, the sources run as they are, and `why_not` says why.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

PACKAGE: Final = Path(__file__).resolve().parent
FOLDER: Final = PACKAGE / "_compiled"
MANIFEST: Final = "manifest.json"
SWITCH: Final = "GATEWAY_COMPILED"
NOT_BUILT: Final = "it was not built"
_OFF: Final = frozenset({"off", "0", "no", "false"})


class Finder(MetaPathFinder):
    """Finds the modules that were compiled, before the sources are looked at."""

    def __init__(self, folder: Path, modules: Sequence[str]) -> None:
        suffix = EXTENSION_SUFFIXES[0]
        self._files = {name: str(folder / (name + suffix)) for name in modules}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The compiled module of that name, if there is one."""
        file = self._files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


def digest(sources: Sequence[str], package: Path = PACKAGE) -> str:
    """One hash over the names and contents of `sources`, paths within the package."""
    total = hashlib.sha256()
    for name in sources:
        total.update(name.encode() + b"\0")
        total.update(hashlib.sha256((package / name).read_bytes()).digest())
    return total.hexdigest()


def install(folder: Path = FOLDER, package: Path = PACKAGE) -> str:
    """Have the compiled modules imported from now on; or why that can't be, as a short phrase.

    Called once, by the package itself, before any other of its modules is imported.
    """
    if os.environ.get(SWITCH, "").lower() in _OFF:
        return f"{SWITCH} is off"
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return NOT_BUILT
    reason = refusal(manifest, package)
    if not reason:
        sys.meta_path.insert(0, Finder(folder, manifest["modules"]))
    return reason


def refusal(manifest: dict[str, Any], package: Path = PACKAGE) -> str:
    """Why what the manifest describes can't be used, or the empty string."""
    if manifest.get("suffix") != EXTENSION_SUFFIXES[0]:
        return "it was built for another Python"
    try:
        same = digest(manifest["sources"], package) == manifest["digest"]
    except OSError:
        same = False
    return "" if same else "the sources have changed since it was built: make compile"


why_not: Final = install()
"""Why the sources run as they are; empty if the compiled modules are used."""


def description() -> str:
    """One phrase for people: what runs."""
    return f"pure Python ({why_not})" if why_not else "compiled"
