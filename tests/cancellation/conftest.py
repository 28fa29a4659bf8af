"""The gateway on both servers, as for the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import serve

__all__ = ["serve"]
