"""A snapshot as text for Prometheus: the 0.0.4 format, or OpenMetrics 1.0.0 if that is asked for.

Own code, because the text is simple and the time is not: with 10,000 busy routes there are half a
million lines, for which prometheus_client's renderer takes ten times as long as this one, with the
data path waiting for the interpreter. The tests read the result with prometheus_client's parsers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from gateway.observability.snapshot import Declaration, Family, Kind, Sample, Snapshot

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_SPECIAL: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_SPECIAL_IN_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept field names OpenMetrics at all, without refusing it by `q=0`."""
    for media_range in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        if kind == "application/openmetrics-text":
            weights = [each[2:] for each in parameters if each.startswith("q=")]
            return all(weight.strip("0.") for weight in weights)
    return False


def render(snapshot: Snapshot, openmetrics: bool) -> bytes:
    """The snapshot in one of the two formats. Takes a while for thousands of series: call it in a
    thread.
    """
    lines: list[str] = []
    for family in snapshot.families:
        lines.extend(_head(family.declaration, openmetrics))
        series = _histogram if family.declaration.kind is Kind.HISTOGRAM else _plain
        lines.extend(series(family))
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode("utf-8", "backslashreplace")


def _head(declaration: Declaration, openmetrics: bool) -> tuple[str, str]:
    name, text = declaration.name, declaration.help
    if openmetrics:
        # There the family has the bare name, its samples end in _total, and HELP escapes quotes.
        name = name.removesuffix("_total") if declaration.kind is Kind.COUNTER else name
        text = text.translate(_SPECIAL)
    else:
        text = text.translate(_SPECIAL_IN_HELP)
    return f"# HELP {name} {text}\n", f"# TYPE {name} {declaration.kind.value}\n"


def _plain(family: Family) -> Iterator[str]:
    name = family.declaration.name
    for sample in family.samples:
        labels = _labels(family.declaration, sample)
        yield f"{name}{{{labels}}} {sample.value}\n" if labels else f"{name} {sample.value}\n"


def _histogram(family: Family) -> Iterator[str]:
    """Cumulative counts by bound, then the count and the sum."""
    name = family.declaration.name
    bounds = [*(repr(float(bound)) for bound in family.declaration.bounds), "+Inf"]
    for sample in family.samples:
        labels = _labels(family.declaration, sample)
        before = f'{name}_bucket{{{labels},le="' if labels else f'{name}_bucket{{le="'
        for bound, count in zip(bounds, accumulate(sample.counts), strict=True):
            yield f'{before}{bound}"}} {count}\n'
        of = f"{{{labels}}}" if labels else ""
        yield f"{name}_count{of} {sum(sample.counts)}\n"
        yield f"{name}_sum{of} {sample.value}\n"


def _labels(declaration: Declaration, sample: Sample) -> str:
    return ",".join(
        f'{label}="{value.translate(_SPECIAL)}"'
        for label, value in zip(declaration.labels, sample.labels, strict=True)
    )
