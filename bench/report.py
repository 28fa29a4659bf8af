"""What a measurement found: rows with what must hold, printed as a table and written as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["ok", "MISSED", "reported", "not judged"]


@dataclass(frozen=True)
class Sample:
    """Several readings of one quantity."""

    readings: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.readings)

    def __str__(self) -> str:
        low, high = min(self.readings), max(self.readings)
        return f"{_short(self.median)} ({_short(low)}-{_short(high)})"


@dataclass(frozen=True)
class Row:
    """One line of the table. `readings` keeps the raw figures, for the JSON file."""

    what: str
    must: str
    figure: str
    verdict: Verdict
    readings: Mapping[str, Any] = field(default_factory=dict)


def at_most(what: str, figure: float, limit: float, unit: str, **readings: Any) -> Row:
    """A row that is ok as long as the figure does not exceed the limit."""
    verdict: Verdict = "ok" if figure <= limit else "MISSED"
    return Row(what, f"<= {_short(limit)}{unit}", f"{_short(figure)}{unit}", verdict, readings)


def at_least(what: str, figure: float, limit: float, unit: str, **readings: Any) -> Row:
    """A row that is ok as long as the figure reaches the limit."""
    verdict: Verdict = "ok" if figure >= limit else "MISSED"
    return Row(what, f">= {_short(limit)}{unit}", f"{_short(figure)}{unit}", verdict, readings)


def reported(what: str, figure: str, **readings: Any) -> Row:
    """A row that asks for nothing."""
    return Row(what, "-", figure, "reported", readings)


def not_judged(what: str, must: str, why: str) -> Row:
    """A row that could not be measured here, and why."""
    return Row(what, must, why, "not judged")


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [("what", "must", "figure", ""), *((r.what, r.must, r.figure, r.verdict) for r in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": sys.version,
        # How fast that build of it is: they differ by half, and no flag tells reliably.
        "python_ms_per_million_calls": _python_speed(),
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
    }


def write(path: Path, rows: Sequence[Row], versions: Mapping[str, str]) -> None:
    """The same as JSON, with everything needed to read it later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine(),
        "versions": dict(versions),
        "rows": [vars(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=2, default=_plain) + "\n")


def _plain(value: object) -> object:
    return list(value.readings) if isinstance(value, Sample) else str(value)


def _short(number: float) -> str:
    """As many digits as are worth reading."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def _python_speed() -> str:
    script = Path(__file__).parent.parent / ".ci" / "python_speed.py"
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "?"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?"
    )
