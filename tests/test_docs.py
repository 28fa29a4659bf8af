"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.clock import ManualClock
from gateway.errors import CODES
from gateway.observability.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent


def test_every_error_code_is_explained() -> None:
    """With its status, in docs/errors.md."""
    text = (ROOT / "docs/errors.md").read_text()

    for kind in CODES.values():
        assert f"| `{kind.code}` | {kind.status} |" in text


def test_every_metric_is_listed() -> None:
    """In docs/operations.md."""
    text = (ROOT / "docs/operations.md").read_text()

    for family in Metrics(ManualClock()).snapshot().families:
        assert f"`{family.declaration.name}`" in text


def test_links_lead_somewhere() -> None:
    """Every relative link of the README and docs/ names a file that is there."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_command_named_in_the_readme_exists() -> None:
    """`lockgate x` in the README is a command."""
    named = set(re.findall(r"\$ lockgate ([a-z]+)", (ROOT / "README.md").read_text()))

    assert named
    assert all((ROOT / f"gateway/cli/{name}.py").exists() for name in named)
