"""Golden files: each `cases/<name>.yaml` beside the `.error` or the `.json` that must come of it.

A new case is a new pair. `python tests/config/test_cases.py` writes the right-hand sides anew; read
the difference before keeping it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.config.loader import ConfigErrors, load
from tests.config.toy import catalog

CASES = Path(__file__).parent / "cases"
ENVIRON = {"TOKEN": "s3cr3t-token", "BAD": "S3cr3t bad", "WORKERS": "2", "EMPTY": ""}


def outcome(name: str) -> tuple[str, str]:
    """The suffix and the text that the case gives."""
    try:
        configuration = load(f"{name}.yaml", catalog, ENVIRON)
    except ConfigErrors as error:
        return ".error", f"{error}\n"
    data = configuration.gateway.model_dump(mode="json", by_alias=True, exclude_unset=True)
    text = json.dumps(data, indent=2, ensure_ascii=False).replace(str(CASES), "<here>")
    return ".json", text + "\n"


NAMES = sorted(path.stem for path in CASES.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration gives exactly the errors, or the resolved data, that stand beside it."""
    monkeypatch.chdir(CASES)

    suffix, text = outcome(name)

    assert text == (CASES / f"{name}{suffix}").read_text(encoding="utf-8")
    # Every secret of the cases contains this word; none is ever printed.
    assert name == "references" or "s3cr3t" not in text.lower()


def test_every_case_has_one_right_side() -> None:
    """No case has both right-hand sides or none, and none is left without its case."""
    rights = sorted(path.stem for suffix in ("error", "json") for path in CASES.glob(f"*.{suffix}"))

    assert rights == NAMES


def _write_all() -> None:
    os.chdir(CASES)
    for name in NAMES:
        for suffix in (".error", ".json"):
            Path(f"{name}{suffix}").unlink(missing_ok=True)
        suffix, text = outcome(name)
        Path(f"{name}{suffix}").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write_all()
