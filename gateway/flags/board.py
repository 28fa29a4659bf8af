"""The orders to flags that are in force: in this process, and in the store for all gateways.

The store holds one hash of them. Each process reads it once a second, so that an order reaches
every gateway within about a second, and a request never waits for the store. While the store is
away, the last known orders hold. Without a store in the configuration they hold in this gateway,
until it ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from pydantic import ValidationError

from gateway.config.model import GatewayConfig
from gateway.config.model_flag import FlagConfig
from gateway.errors import ConfigError, StoreError
from gateway.flags.rules import Switch
from gateway.observability.families import FLAG_SHARE
from gateway.observability.metrics import Metrics
from gateway.store.base import Store

logger = logging.getLogger("gateway.flags")

KIND: Final = "flags"
EVERY_S: Final = 1.0


class InvalidFlag(ValueError):
    """An order that is none; the text says why."""


def read_value(value: Any) -> FlagConfig:
    """What somebody ordered: `on`, `off`, a percentage or a mapping. Raises InvalidFlag."""
    try:
        return FlagConfig.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidFlag(f"{where}: {first['msg']}" if where else str(first["msg"])) from None


class FlagBoard:
    """All flags of one process. `store` is None if the configuration has none."""

    def __init__(self, store: Store | None, metrics: Metrics) -> None:
        self._store = store
        self._key = b"%bflags" % store.key_prefix if store is not None else b""
        self._metrics = metrics
        self._orders: dict[str, FlagConfig] = {}
        self._switches: WeakSet[Switch] = WeakSet()
        self._reading: asyncio.Task[None] | None = None
        # Counts the orders given here, so that what was read before one does not undo it.
        self._changes = 0

    @property
    def is_shared(self) -> bool:
        """Whether orders reach other gateways."""
        return self._store is not None

    def switch(self, name: str, config: GatewayConfig) -> Switch:
        """A switch that follows the flag. Raises ConfigError if there is no such flag."""
        configured = config.flags.get(name)
        if configured is None:
            raise ConfigError(f'there is no flag "{name}"')
        switch = Switch(name, configured, config.consumers)
        switch.follow(self._orders.get(name))
        self._switches.add(switch)
        self._metrics.counts(FLAG_SHARE).set(name, value=switch.rule.share)
        return switch

    async def order(self, name: str, value: FlagConfig | None, *, tell: bool) -> None:
        """Have a flag be something else than configured, or as configured again (None).

        `tell` writes it to the store. Raises StoreError, and then nothing has changed here.
        """
        if tell and self._store is not None:
            if value is None:
                await self._store.call("HDEL", self._key, name)
            else:
                await self._store.call("HSET", self._key, name, json.dumps(value.plain()))
        self._changes += 1
        orders = {**self._orders}
        orders.pop(name, None)
        if value is not None:
            orders[name] = value
        self._apply(orders)

    def _apply(self, orders: dict[str, FlagConfig]) -> None:
        before, self._orders = self._orders, orders
        names = before.keys() | orders.keys()
        changed = {name for name in names if before.get(name) != orders.get(name)}
        for switch in self._switches if changed else ():
            if switch.name in changed:
                switch.follow(orders.get(switch.name))
                self._metrics.counts(FLAG_SHARE).set(switch.name, value=switch.rule.share)
        for name in sorted(changed):
            order = orders.get(name)
            said = "as configured" if order is None else str(order.plain())
            logger.info("flag %s: %s", name, said, extra={"flag": name, "value": said})

    def value(self, name: str, configured: FlagConfig) -> Any:
        """What a flag is now, as people write it."""
        return self._orders.get(name, configured).plain()

    def status(self, config: GatewayConfig) -> list[dict[str, Any]]:
        """Every flag of the configuration, as the admin API shows it."""
        return [
            {
                "name": name,
                "value": self.value(name, configured),
                "configured": configured.plain(),
                "ordered": name in self._orders,
                "shared": self.is_shared,
            }
            for name, configured in config.flags.items()
        ]

    async def start(self) -> None:
        """Read the orders, if the store has them at hand, and keep reading. Idempotent."""
        if self._store is None or self._reading is not None:
            return
        await self._read()
        self._reading = asyncio.create_task(self._read_on())

    async def _read_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self._read()
            except Exception:
                logger.exception("reading the flags failed")

    async def _read(self) -> None:
        assert self._store is not None
        changes = self._changes
        try:
            reply: list[bytes] = await self._store.call("HGETALL", self._key)
        except StoreError:
            # The last known orders hold; the store says by itself that it is away.
            return
        if changes != self._changes:
            return
        orders: dict[str, FlagConfig] = {}
        for name, text in zip(reply[::2], reply[1::2], strict=False):
            try:
                value = read_value(json.loads(text))
                orders[name.decode("utf-8", "replace")] = value
            except ValueError:
                logger.warning("the store has an order to a flag that can't be read: %r", name)
        self._apply(orders)

    async def aclose(self) -> None:
        """Stop reading."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])


def open_board(
    config: GatewayConfig,
    shared: Callable[[tuple[object, ...], Callable[[], Any]], Any],
    open_store: Callable[[], Store],
    metrics: Metrics,
) -> FlagBoard:
    """The board of this configuration: with the store, if one is configured."""
    configured = config.store if "store" in config.model_fields_set else None
    # Also when the board is there already: asking for the store is what keeps it.
    store = open_store() if configured is not None else None
    board: FlagBoard = shared((KIND, configured), lambda: FlagBoard(store, metrics))
    return board
