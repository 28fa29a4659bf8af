"""Challenges for bearer tokens (RFC 6750 section 3): what a refused caller is told, and how."""

from __future__ import annotations

import re
from typing import Final

# What RFC 6750 section 3 allows in error_description, and what a scope token may hold.
_UNSAFE: Final = re.compile(r"[^ !#-\[\]-~]")


def bearer(realm: str, error: str = "", description: str = "", scope: str = "") -> str:
    """A Bearer challenge. Without credentials in the request, no `error` belongs in it."""
    text = f'Bearer realm="{_quoted(realm)}"'
    if error:
        text += f', error="{error}"'
    if description:
        text += f', error_description="{_quoted(description)}"'
    if scope:
        text += f', scope="{_quoted(scope)}"'
    return text


def _quoted(text: str) -> str:
    return _UNSAFE.sub("'", text)
