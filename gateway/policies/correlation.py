"""correlation: every exchange has an id, which the upstream, the client and the log all see.

An id is taken from the client if it is one at all. It proves nothing and opens nothing, so any
client may choose it: a gateway inside a company is called by services that began the flow, rarely
by trusted proxies alone. Where clients are strangers, `accept: false` makes every id our own.

X-Request-ID names one hop's request, so none is made here: the client's own passes and is echoed,
unless it is malformed or `accept` is off. A flow that is followed by that field is configured with
`header: X-Request-ID`.
"""

from __future__ import annotations

import random
from typing import ClassVar

from pydantic import Field

from gateway.config.base import PolicyConfig
from gateway.config.fields import EndToEndField
from gateway.observability.correlation import Correlator
from gateway.policies.base import BuildContext, Guard


class CorrelationConfig(PolicyConfig):
    """How exchanges are told apart, and followed from service to service."""

    header: EndToEndField = Field(
        default="X-Correlation-ID",
        description="The field that carries the id, in requests and in answers.",
    )
    accept: bool = Field(
        default=True,
        description="Take the id from the client if it sends one of up to 128 letters, digits and "
        "._:- characters; false makes a new one for every request.",
    )


class CorrelationPolicy(Guard):
    """Gives the exchange its id. Never refuses."""

    name: ClassVar[str] = "correlation"
    Config: ClassVar[type[CorrelationConfig]] = CorrelationConfig

    def __init__(self, config: CorrelationConfig, rng: random.Random) -> None:
        header = config.header.lower().encode("ascii")
        # No method of this class, so that the chain calls what is compiled and nothing between.
        self.check = Correlator(header, config.accept, rng.randbytes).identify  # type: ignore[method-assign]

    @classmethod
    def build(cls, config: CorrelationConfig, context: BuildContext) -> CorrelationPolicy:
        """Keep the field's name and the source of ids."""
        return cls(config, context.random)
