"""Which target an exchange goes to: what the balancer says, and what was tried already.

The balancer is replaced whenever other targets can be used (`supervision.py`), so that choosing one
never asks who is healthy.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

from gateway.clock import Clock
from gateway.config.model import UpstreamConfig
from gateway.errors import NO_HEALTHY_TARGET, UpstreamError
from gateway.message import Exchange
from gateway.observability.metrics import Metrics
from gateway.upstream.balancer import Balancer
from gateway.upstream.connector import Connector
from gateway.upstream.ring import Hashed
from gateway.upstream.selection import Selection
from gateway.upstream.supervision import Supervision
from gateway.upstream.target import Target


class Chooser:
    """Chooses among the targets of one upstream. `supervision` is None if nobody watches them."""

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        targets: Sequence[Target],
        *,
        connector: Connector,
        clock: Clock,
        random: random_module.Random,
        metrics: Metrics | None,
    ) -> None:
        self._name = name
        self._targets = targets
        self._choose: Callable[..., Target | None]
        # Set if the exchange itself has a say in the choice.
        self._hashed: Hashed | None = None
        self.supervision: Supervision | None = None
        if config.health is None and config.outliers is None:
            self.use(Selection(config.balance, random).make(targets))
        else:
            self.supervision = Supervision(
                name, config, targets, connector=connector, clock=clock, random=random,
                metrics=metrics, use=self.use,
            )  # fmt: skip

    def use(self, balancer: Balancer | Hashed) -> None:
        """Choose by this balancer from now on."""
        self._choose = balancer.choose
        self._hashed = balancer if isinstance(balancer, Hashed) else None

    def inherit(self, before: Chooser) -> None:
        """Take over what is known about the targets."""
        if self.supervision is not None and before.supervision is not None:
            self.supervision.inherit(before.supervision)

    def choose(self, exchange: Exchange) -> Target:
        """The exchange's target: one that it did not try; if it tried all, any but the last one.

        Raises UpstreamError(NO_HEALTHY_TARGET).
        """
        if exchange.tried is not None:
            chosen = self._another(exchange, exchange.tried)
        elif self._hashed is None:
            chosen = self._choose()
        else:
            chosen = self._hashed.choose_for(exchange)
        return chosen or self._nobody()

    def _another(self, exchange: Exchange, labels: Collection[str]) -> Target | None:
        tried = [each for each in self._targets if each.label in labels]
        chosen = self.choose_but(exchange, tried)
        if chosen is None:
            exchange.tried = {exchange.target}
            last = [each for each in self._targets if each.label == exchange.target]
            chosen = self.choose_but(exchange, last)
        return chosen or self.choose_but(exchange, ())

    def choose_but(self, exchange: Exchange, tried: Collection[Target]) -> Target | None:
        """The balancer's choice among the others; None if there are none."""
        if self._hashed is not None:
            return self._hashed.choose_for(exchange, tried)
        return self._choose(tried)

    def _nobody(self) -> NoReturn:
        """Every target is out, and the configuration says not to try them all the same."""
        seconds = 1 if self.supervision is None else self.supervision.retry_after()
        raise UpstreamError(
            NO_HEALTHY_TARGET,
            f"{self._name}: none of {len(self._targets)} targets is healthy",
            sent=False,
            headers=[(b"retry-after", b"%d" % seconds)],
        )
