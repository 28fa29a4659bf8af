"""The configuration of `cache`: what a route adds to what its answers say themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import PolicyConfig
from gateway.config.types import Duration, Size, refuse
from gateway.http1.head import TOKEN


def _part(value: str) -> str:
    if value == "consumer":
        return value
    kind, _, name = value.partition(":")
    if kind != "header" or not TOKEN.fullmatch(name.lower().encode("utf-8")):
        raise refuse("vary_on", "expected consumer or header:Name", "as in header:X-Tenant")
    return f"header:{name.lower()}"


def _tag(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable() or set(value) & set(" ,"):
        raise refuse("tag", "a tag is visible ASCII without spaces and commas")
    return value


Part = Annotated[str, AfterValidator(_part)]
Tag = Annotated[str, Field(max_length=256), AfterValidator(_tag)]


class CacheConfig(PolicyConfig):
    """Keeps answers to GET, by RFC 9111 as a shared cache, and gives them again.

    `{}` stores by the answers' own fields alone.
    """

    ttl: Duration | None = Field(
        default=None, description="The freshness of answers that state none."
    )
    force: bool = Field(
        default=False,
        description="Whether ttl also replaces the freshness that answers do state. What they "
        "forbid (no-store, private, no-cache, Set-Cookie) stays forbidden.",
    )
    stale_while_revalidate: Duration = Field(
        default=0.0,
        description="How long past its freshness an answer is given while it is fetched anew, "
        "where it does not say itself.",
    )
    stale_if_error: Duration = Field(
        default=0.0,
        description="How long past its freshness an answer is given in place of a failure or a "
        "500, 502, 503 or 504, where it does not say itself.",
    )
    vary_on: list[Part] = Field(
        default=[],
        description="What parts callers beside Vary: consumer (answers are kept for each caller "
        "alone) and header:Name.",
        examples=[["consumer"], ["header:X-Tenant"]],
    )
    shared: bool = Field(
        default=False,
        description="Whether answers are also kept in the store, for all gateways that use it.",
    )
    methods: list[Literal["GET", "HEAD"]] = Field(
        default=["GET", "HEAD"],
        min_length=1,
        description="The methods that are answered from the cache; HEAD from what GET stored.",
    )
    max_entry: Size = Field(
        default=1024 * 1024, description="The largest body that is kept, in bytes."
    )
    coalesce: Duration = Field(
        default=5.0,
        description="How long a request waits for the answer to another one that it could use; 0s "
        "sends each to the upstream.",
    )
    tags: list[Tag] = Field(
        default=[],
        max_length=64,
        description="Tags of every answer of the route, to purge by, beside those in the answers' "
        "Cache-Tag and Surrogate-Key fields.",
    )

    @model_validator(mode="after")
    def _fits(self) -> CacheConfig:
        if self.force and self.ttl is None:
            raise refuse("cache", "force replaces freshness by ttl, and there is no ttl")
        if "GET" not in self.methods:
            raise refuse("cache", "only what GET stores can be given again: methods needs GET")
        return self

    @property
    def by_consumer(self) -> bool:
        """Whether each caller's answers are kept apart."""
        return "consumer" in self.vary_on

    @property
    def fields(self) -> tuple[bytes, ...]:
        """The header fields that part callers."""
        names = {each.partition(":")[2] for each in self.vary_on if each != "consumer"}
        return tuple(sorted(name.encode("ascii") for name in names))
