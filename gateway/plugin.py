"""All that a plugin may import.

A plugin is a module with a subclass of Guard or Around; see `plugins/` for one to copy.
"""

from __future__ import annotations

import typing

from pydantic import Field

from gateway.clock import Clock
from gateway.config.base import PolicyConfig, RefusingPolicyConfig
from gateway.config.types import Duration, Secret, Size
from gateway.errors import (
    ConfigError,
    ErrorCode,
    GatewayError,
    Refused,
    Rejection,
    Source,
    StoreError,
)
from gateway.message import Exchange, Handler, Headers, Principal, Request, Response
from gateway.observability.families import Counts
from gateway.observability.snapshot import Declaration, Kind
from gateway.policies.base import Around, BuildContext, Guard, Stage
from gateway.store.base import Store
from gateway.store.script import Script

if typing.TYPE_CHECKING:
    from gateway.control.client import ControlClient, ControlError, Reply

__all__ = [
    "Around",
    "BuildContext",
    "Clock",
    "ConfigError",
    "ControlClient",
    "ControlError",
    "Counts",
    "Declaration",
    "Duration",
    "ErrorCode",
    "Exchange",
    "Field",
    "GatewayError",
    "Guard",
    "Handler",
    "Headers",
    "Kind",
    "PolicyConfig",
    "Principal",
    "Refused",
    "RefusingPolicyConfig",
    "Rejection",
    "Reply",
    "Request",
    "Response",
    "Script",
    "Secret",
    "Size",
    "Source",
    "Stage",
    "Store",
    "StoreError",
]


# The HTTP client takes memory that a plugin without it should not pay for.
_LATE = frozenset({"ControlClient", "ControlError", "Reply"})


def __getattr__(name: str) -> typing.Any:
    if name in _LATE:
        from gateway.control import client  # noqa: PLC0415

        return getattr(client, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
