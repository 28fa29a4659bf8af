"""circuit_breaker: an upstream that fails is left alone until it has had time to recover."""

from typing import Final

KEY: Final = ("circuit_breakers",)
"""The key of the board of all breakers, among the long-lived objects."""
