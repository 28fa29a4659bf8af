"""The last comparisons of a route that found something, for people to look at; free of secrets."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway.message import Request
from gateway.observability.redact import MASK, QueryRedactor
from gateway.policies.mirror.compare import Difference

if TYPE_CHECKING:
    from gateway.config.model import RedactConfig

_KEPT: Final = 20
_LONGEST: Final = 200
_STEP: Final = re.compile(r"\.\.|\.?([^.\[\]]+)|\[([^\]]*)\]")


class Masking:
    """Hides what `telemetry.redact` names: query parameters, header fields, JSON fields."""

    def __init__(self, redact: RedactConfig) -> None:
        self.query = QueryRedactor(redact.query)
        self._headers = frozenset(name.lower() for name in redact.headers)
        self._fields = [pattern_of(path) for path in redact.fields]

    def value(self, difference: Difference, value: Any) -> Any:
        """The value of a difference, as it may be shown."""
        if difference.aspect == "headers" and difference.where in self._headers:
            return MASK
        if difference.aspect == "fields" and self._is_secret(difference.where):
            return MASK
        if isinstance(value, int | float | bool) or value is None:
            return value
        text = value if isinstance(value, str) else json.dumps(value)
        return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."

    def _is_secret(self, pointer: str) -> bool:
        """Whether the pointer leads to a secret, into one, or to something that may hold one."""
        return any(pattern.touches(pointer) for pattern in self._fields)


class _Pattern:
    """A path such as `$.a[*].b`, to be held against JSON pointers."""

    def __init__(self, steps: Sequence[str]) -> None:
        self._steps = steps

    def touches(self, pointer: str) -> bool:
        """Whether it names what the pointer leads to, something around it, or something within."""
        given = pointer.split("/")[1:]
        around = any(_fits(self._steps, given[:end]) for end in range(len(given) + 1))
        starts = range(len(self._steps) + 1)
        return around or ".." in self._steps or any(_fits(self._steps[:n], given) for n in starts)


def _fits(steps: Sequence[str], given: Sequence[str]) -> bool:
    if not steps:
        return not given
    if steps[0] == "..":
        return any(_fits(steps[1:], given[start:]) for start in range(len(given) + 1))
    if not given or (steps[0] not in ("*", given[0]) and given[0] != "*"):
        return False
    return _fits(steps[1:], given[1:])


def pattern_of(path: str) -> _Pattern:
    """The pattern of a `telemetry.redact.fields` entry, such as `$.password` or `$..token`."""
    steps = []
    for match in _STEP.finditer(path.removeprefix("$")):
        step = match[1] or (match[2] or "").strip("'\"")
        steps.append(".." if match[0] == ".." else step)
    return _Pattern(steps)


class MirrorSamples:
    """The samples of one route. `upstream` is the mirror's."""

    def __init__(self, route: str, upstream: str) -> None:
        self._route = route
        self._upstream = upstream
        self._samples: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def add(
        self, at: float, request: Request, correlation_id: str,
        differences: Sequence[Difference], masking: Masking,
    ) -> None:  # fmt: skip
        """Keep what a comparison found, at a Unix time in seconds."""
        sample = {
            "at": at,
            "correlation_id": correlation_id,
            "method": request.method,
            "path": request.path,
            "query": masking.query(request.query) if request.query else "",
            "differences": [
                {
                    "aspect": each.aspect,
                    "where": each.where,
                    "expected": masking.value(each, each.expected),
                    "found": masking.value(each, each.found),
                }
                for each in differences
            ],
        }
        self._samples.append(sample)

    def status(self) -> dict[str, Any]:
        """What the admin API shows, the latest last."""
        return {
            "route": self._route,
            "upstream": self._upstream,
            "samples": list(self._samples),
        }
