"""audit: each call of a route is written into the audit, beside what asynchronous routes do.

The entry is written when the exchange has ended, behind the answer: it costs the caller nothing and
can't refuse anything. `lockgate trace` shows it among all else that has the same correlation id.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict, RootModel

from gateway.clock import Clock
from gateway.delivery.audit_entry import Entry
from gateway.delivery.recorder import Recorder
from gateway.errors import ConfigError
from gateway.message import Exchange
from gateway.policies.base import BuildContext, Guard
from gateway.request_key import FIELD


class AuditPolicyConfig(RootModel[bool]):
    """Whether each call of the route is written into the audit, in the store."""

    model_config = ConfigDict(frozen=True)


class AuditPolicy(Guard):
    """Notes each exchange at its end. Never refuses."""

    name: ClassVar[str] = "audit"
    Config: ClassVar[type[AuditPolicyConfig]] = AuditPolicyConfig

    def __init__(self, recorder: Recorder | None, clock: Clock) -> None:
        self._recorder = recorder
        self._clock = clock

    @classmethod
    def build(cls, config: AuditPolicyConfig, context: BuildContext) -> AuditPolicy:
        """Open the audit. Raises ConfigError if it is switched off."""
        if not config.root:
            return cls(None, context.clock)
        if context.telemetry.audit is None:
            raise ConfigError("telemetry.audit is null, so nothing can be written")
        return cls(open_recorder(context), context.clock)

    def check(self, exchange: Exchange) -> None:
        """Be there when it ends."""
        if self._recorder is not None:
            exchange.on_finish.append(self._note)

    def _note(self, exchange: Exchange) -> None:
        assert self._recorder is not None
        seconds = self._clock.monotonic() - exchange.started
        principal, error = exchange.principal, exchange.error
        key = exchange.request.headers.get(FIELD)
        self._recorder.record(
            Entry(
                self._clock.wall() - seconds,
                "call",
                exchange.route,
                exchange.correlation_id,
                target=exchange.upstream,
                consumer=principal.consumer if principal is not None else "",
                generation=exchange.generation,
                key=key.decode("latin-1").strip('"') if key is not None else "",
                attempt=exchange.attempts,
                status=exchange.response_status,
                code=error.code if error is not None else "",
                ms=round(seconds * 1000, 3),
                method=exchange.request.method,
            )
        )


def open_recorder(context: BuildContext) -> Recorder:
    """The recorder of this store, the same one for all routes."""
    dispatcher = context.dispatcher()
    recorder: Recorder = context.shared(
        ("audit", context.config.store, dispatcher.journal.retention),
        lambda: Recorder(dispatcher.queue, dispatcher.journal, context.metrics),
    )
    return recorder
