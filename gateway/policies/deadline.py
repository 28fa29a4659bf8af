"""timeout: the moment by which an exchange must be over, for all attempts and the body together.

One timer for each exchange; when it fires, whatever the exchange awaits is cancelled, and the
cancellation is turned into a 504 here. The timer goes on while the answer's body streams; if it
fires then, the edge cuts the answer. It ends with the head of an answer that has no end of its own:
an event stream, or an upgraded connection (101). Those are meant to stay open, and a timeout that
counts their lifetime would only make clients reconnect; idle times bound them instead.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, RootModel

from gateway.clock import Clock
from gateway.config.types import Timeout
from gateway.policies.base import Around, BuildContext, Stage
from gateway.upstream.deadline import Deadline


class DeadlineConfig(RootModel[Timeout]):
    """How long an exchange may take, every attempt and the answer's body included; 504."""

    model_config = ConfigDict(frozen=True)


class DeadlinePolicy(Around):
    """Ends the exchange when its time is over. `timeout_s` is in seconds."""

    name: ClassVar[str] = "timeout"
    stage: ClassVar[Stage] = Stage.DELIVERY
    Config: ClassVar[type[DeadlineConfig]] = DeadlineConfig

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        # No method of this class, so that the chain calls what is compiled and nothing between.
        self.handle = Deadline(timeout_s, clock.monotonic).run  # type: ignore[method-assign]

    @classmethod
    def build(cls, config: DeadlineConfig, context: BuildContext) -> DeadlinePolicy:
        """Keep the timeout."""
        return cls(config.root, context.clock)
