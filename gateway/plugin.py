"""All that a plugin may import.

A plugin is a module with a subclass of Guard or Around; see `plugins/` for one to copy.
"""

from __future__ import annotations

from pydantic import Field

from gateway.clock import Clock
from gateway.config.base import PolicyConfig, RefusingPolicyConfig
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
from gateway.policies.base import Around, BuildContext, Guard, Stage
from gateway.store.base import Store
from gateway.store.script import Script

__all__ = [
    "Around",
    "BuildContext",
    "Clock",
    "ConfigError",
    "ErrorCode",
    "Exchange",
    "Field",
    "GatewayError",
    "Guard",
    "Handler",
    "Headers",
    "PolicyConfig",
    "Principal",
    "Refused",
    "RefusingPolicyConfig",
    "Rejection",
    "Request",
    "Response",
    "Script",
    "Source",
    "Stage",
    "Store",
    "StoreError",
]
