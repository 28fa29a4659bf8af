"""What the format already names and this version does not do: recognised, and always refused.

A key that is silently ignored would be a policy that someone believes in.
"""

from __future__ import annotations

from typing import Final

TOP_LEVEL: Final[frozenset[str]] = frozenset()
TELEMETRY: Final = frozenset({"tracing"})
POLICIES: Final = frozenset(
    {
        "deprecation",
        "minimise",
        "transform",
    }
)

MESSAGE: Final = "not available yet"
