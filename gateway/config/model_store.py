"""The `store:` section: where limits, claims, queues and shared caches are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from gateway.config.base import Model
from gateway.config.store_url import FORMS, StoreKind, StoreUrl, parse_store_url
from gateway.config.types import ConfigPath, Timeout, refuse

__all__ = ["StoreConfig", "StoreKind", "StoreUrl"]

_PREFIX_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"


def _prefix(value: str) -> str:
    # A brace would be taken for a hash tag and send every key to one node of a cluster.
    plain = value.replace(".", "").replace("_", "").replace(":", "").replace("-", "")
    if not (plain.isascii() and plain.isalnum() and value[0].isalnum() and len(value) <= 64):
        message = "a key prefix holds letters, digits, dots, colons, underscores and hyphens"
        raise refuse("key_prefix", f"{message}, at most 64")
    return value


StoreAddress = Annotated[
    StoreUrl,
    BeforeValidator(parse_store_url),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "description": f"Where the store is: {FORMS}.",
            "pattern": r"^(?:embedded|(?:rediss?|unix|redis\+sentinel|redis\+cluster)://.+)$",
            "examples": [
                "embedded",
                "redis://:${env:REDIS_PASSWORD}@redis.internal:6379/0",
                "rediss://redis.internal:6380?ca=/etc/ssl/redis-ca.pem",
                "unix:///run/redis/redis.sock",
                "redis+sentinel://s1:26379,s2:26379,s3:26379/mymaster",
                "redis+cluster://n1:6379,n2:6379,n3:6379",
            ],
        },
        mode="validation",
    ),
]
"""A `StoreUrl`; its text shows no password."""

KeyPrefix = Annotated[
    str,
    AfterValidator(_prefix),
    WithJsonSchema(
        {
            "type": "string",
            "description": "Letters, digits, dots, colons, underscores and hyphens.",
            "pattern": _PREFIX_PATTERN,
        },
        mode="validation",
    ),
]
"""What every key begins with."""


class StoreConfig(Model):
    """The store that gateways share, in the Redis protocol. Nothing is started or connected unless
    something configured needs it.
    """

    url: StoreAddress = Field(
        default=StoreUrl(),
        description="embedded starts a private server beside the gateway; every other form is a "
        "Redis or Valkey (6.2 or newer) that several gateways share.",
    )
    data: ConfigPath = Field(
        default=Path("var/store"),
        description="The directory in which the embedded server keeps its append-only file. One "
        "gateway at a time.",
    )
    timeout: Timeout = Field(
        default=0.05,
        description="The longest that a request waits for one call to the store. After that, what "
        "needed it does what it is configured to do without a store.",
    )
    key_prefix: KeyPrefix = Field(
        default="lockgate",
        min_length=1,
        description="What every key in the store begins with. Gateways that share limits share it.",
    )
