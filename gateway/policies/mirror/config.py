"""What can be said of a mirror."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.config.base import PolicyConfig
from gateway.config.model_route import FieldName, Method
from gateway.config.types import Count, Name, Ratio, Size, Timeout, refuse
from gateway.policies.mirror.compare import Rules


def _pointer(value: str) -> str:
    if not value.startswith("/"):
        raise refuse("pointer", "expected a JSON pointer such as /items/0/id")
    return value


class MirrorConfig(PolicyConfig):
    """Copies of requests go to another upstream; the client never notices."""

    upstream: Name = Field(description="The upstream that gets the copies.")
    percent: Ratio = Field(default=1.0, description="The share of requests that are copied.")
    methods: list[Method] = Field(
        default=["GET", "HEAD"],
        min_length=1,
        description="The methods that are copied. Name others only if the mirror may do what they "
        "ask for, as well as the upstream.",
    )
    compare: list[Literal["status", "schema"]] = Field(
        default=["status"],
        description="What of the two answers is compared: status; schema for the kinds of values "
        "in JSON bodies, and where they are.",
    )
    headers: list[FieldName] = Field(
        default=[], description="Fields of the answers that are compared as well."
    )
    fields: list[Annotated[str, AfterValidator(_pointer)]] = Field(
        default=[],
        description="Values in JSON bodies that are compared as well, by JSON pointer.",
        examples=[["/total", "/items/0/id"]],
    )
    max_body: Size = Field(
        default=64 * 1024,
        description="Larger request bodies are not copied, larger answers not compared.",
    )
    max_concurrent: Count = Field(
        default=16,
        description="Copies under way at once, for each worker; what comes then is not copied.",
    )
    timeout: Timeout = Field(default=5.0, description="How long a copy may take in all.")

    def rules(self) -> Rules:
        """What is compared."""
        return Rules(
            "status" in self.compare,
            tuple(name.lower().encode("ascii") for name in self.headers),
            "schema" in self.compare,
            tuple(self.fields),
        )
