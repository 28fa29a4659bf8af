"""hatchling's hook: puts the compiled modules into the wheel if COMPILE_GATEWAY is set.

Only on request, because it takes a minute and makes a wheel for one kind of machine. The image asks
for it; then it fails if it can't be done, so that no image is slow by accident.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles into a folder of its own, and has the wheel take it as `gateway/_compiled`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the files of the wheel are gathered; `version` is its kind."""
        if version == "editable" or not os.environ.get("COMPILE_GATEWAY"):
            return
        sys.path.insert(0, str(Path(self.root) / ".ci"))
        from compile_gateway import build

        self._folder = tempfile.TemporaryDirectory()
        made = Path(self._folder.name) / "_compiled"
        build(made, Path(self._folder.name) / "work")
        build_data["force_include"][str(made)] = "gateway/_compiled"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called once the wheel is there."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
