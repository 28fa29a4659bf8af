"""What the supervising process and its workers say to each other, and how a configuration travels.

A configuration is read and checked once, by the supervisor, and sent as it is: every worker builds
from the same data, whatever happens to the files meanwhile.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.admin.control import BreakerOrder, FlagOrder, FlagOutcome, Purge
from gateway.config.model_flag import FlagConfig
from gateway.errors import ConfigError, StoreError
from gateway.flags.board import FlagBoard, InvalidFlag, read_value
from gateway.policies.catalog import PolicyCatalog
from gateway.runtime import Loaded


class Build(msgspec.Struct):
    """Build generation `generation` of the configuration. Sent with `start` and `prepare`."""

    generation: int
    plugins: list[str]
    base_dir: str
    configuration: bytes


class Launch(msgspec.Struct):
    """What a worker needs before it can build anything. Sent once, with `start`."""

    build: Build
    instance: str
    log_level: str
    heartbeat: float
    stock: bool
    breakers: list[BreakerOrder] = []
    flags: list[FlagOrder] = []


class Explain(msgspec.Struct):
    """The arguments of `explain`."""

    method: str
    url: str


class PurgeOrder(msgspec.Struct):
    """The arguments of `purge`: one worker tells the store, all forget what they have."""

    what: Purge
    tell: bool


class FlagCall(msgspec.Struct):
    """The arguments of `order_flag`: one worker tells the store, all follow."""

    order: FlagOrder
    tell: bool


async def carry_out(
    board: FlagBoard, configured: FlagConfig, order: FlagOrder, *, tell: bool
) -> FlagOutcome:
    """Have this process's flags follow an order; see `Control.order_flag`."""
    try:
        value = None if order.reset else read_value(order.value)
        before = board.value(order.name, configured)
        await board.order(order.name, value, tell=tell)
    except InvalidFlag as error:
        return FlagOutcome("invalid", str(error))
    except StoreError as error:
        return FlagOutcome("unavailable", error.detail)
    return FlagOutcome("done", "", before, board.value(order.name, configured))


class BreakerOrders:
    """The orders to circuit breakers that are in force, for workers that start later."""

    def __init__(self) -> None:
        self._orders: dict[tuple[str, str], BreakerOrder] = {}

    def note(self, order: BreakerOrder) -> None:
        """Remember an order, or that it was taken back."""
        key = (order.upstream, order.route)
        self._orders.pop(key, None)
        if order.state != "auto":
            self._orders[key] = order

    def __iter__(self) -> Iterator[BreakerOrder]:
        return iter(self._orders.values())


def pack(loaded: Loaded, generation: int) -> Build:
    """A configuration on its way to a worker."""
    configuration = loaded.configuration
    return Build(
        generation=generation,
        plugins=list(configuration.gateway.plugins),
        base_dir=str(configuration.base_dir),
        # Only ever read by a child of this process, over a socket pair made for it.
        configuration=pickle.dumps(configuration, pickle.HIGHEST_PROTOCOL),
    )


def unpack(build: Build) -> Loaded:
    """The configuration as the worker uses it. Raises ConfigError if a plugin can't be loaded."""
    catalog = PolicyCatalog()
    # The plugins' modules must be there before the models of their policies can be.
    catalog(build.plugins, Path(build.base_dir))
    try:
        configuration = pickle.loads(build.configuration)  # noqa: S301 - from our own parent
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"a plugin changed while it was loaded ({error})", "plugins") from error
    # Here, because this runs beside the event loop.
    catalog.import_used(configuration.gateway)
    return Loaded(configuration, catalog)
