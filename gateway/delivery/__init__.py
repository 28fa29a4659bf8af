"""Asynchronous routes: events kept in the store, delivered, repeated, and found again."""

from __future__ import annotations

from typing import Final

KIND: Final = "delivery"
"""With what the keys of dispatchers begin in the registry of what outlives a configuration."""
