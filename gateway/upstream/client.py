"""The facade of this package: one upstream, with its targets, pools, DNS and TLS.

It joins the parts: choose a target, get a connection, send, and decide whether a failure may be
tried once more. Two retries are made here and no other: another target when connecting failed, and
a fresh connection when a reused one turned out dead, each only while that can't do anything twice.
Where a retry policy counts attempts, the first of them counts as one; the second never does,
because it answers for the pool's own guess that a connection was still good.
"""

from __future__ import annotations

import asyncio
import random as random_module
from importlib import import_module
from typing import Any, Final

from gateway.clock import Clock
from gateway.config.model import UpstreamConfig
from gateway.errors import ATTEMPT_TIMEOUT, GatewayError, UpstreamError
from gateway.message import Exchange, RawHeaders, Response
from gateway.observability.metrics import Metrics
from gateway.upstream.chooser import Chooser
from gateway.upstream.connection import UpstreamConnection
from gateway.upstream.connector import Connector
from gateway.upstream.headers import (
    RequestFields,
    declared_length,
    encode_head,
    framing_fields,
    last_hop,
    streaming_fields,
)
from gateway.upstream.pool import Pool
from gateway.upstream.repeat import is_repeatable
from gateway.upstream.resolver import Resolver
from gateway.upstream.status import target_status
from gateway.upstream.target import Target
from gateway.upstream.tls import ClientTls
from gateway.upstream.upload import Upload

BODY_IDLE_S: Final = 30.0
_SWEEP_S: Final = 5.0


class Upstream:
    """A service and the ways to it. It outlives reloads as long as its configuration is equal.

    `body_idle` is how long a body may stand still in either direction, in seconds; event streams
    may be silent for longer. `pseudonym` names this gateway in Via. `resolver` replaces the one
    that asks the system. `before` is the upstream of this name until now, whose knowledge about the
    targets goes on.
    """

    def __init__(
        self,
        name: str,
        config: UpstreamConfig,
        *,
        clock: Clock,
        random: random_module.Random,
        pseudonym: str,
        metrics: Metrics | None = None,
        body_idle: float = BODY_IDLE_S,
        resolver: Resolver | None = None,
        before: Upstream | None = None,
    ) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._now = clock.monotonic
        self._make_fields = RequestFields(pseudonym).make
        self._resolver = resolver or Resolver(clock)
        self._connector = Connector(self._resolver, config.connect_timeout)
        server_name = (config.tls.server_name if config.tls else None) or ""
        self.targets = [
            Target(each.url, each.weight, server_name, each.priority) for each in config.targets
        ]
        self._chooser = Chooser(
            name, config, self.targets, connector=self._connector, clock=clock, random=random,
            metrics=metrics,
        )  # fmt: skip
        if before is not None:
            self._chooser.inherit(before._chooser)
        self._supervision = self._chooser.supervision
        self._pools = {target: self._pool(target, body_idle) for target in self.targets}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._metrics = metrics
        if metrics is not None:
            metrics.before_snapshot.append(self._publish)

    def _pool(self, target: Target, body_idle: float) -> Pool:
        connections = self._config.connections
        return Pool(
            target,
            self._connector,
            self._clock,
            limit=connections.max,
            keep_alive=connections.keep_alive,
            body_idle=body_idle,
        )

    async def start(self) -> None:
        """Read the TLS files, and begin to look up names without waiting for them.

        Raises ConfigError if a file can't be used; an upstream that is down is no error. Starting
        again does nothing but `reload_tls`.
        """
        if self._sweeper is not None:
            self.reload_tls()
            return
        if any(target.address.tls for target in self.targets):
            self._connector.tls = ClientTls(self._config.tls, f"upstreams.{self.name}.tls")
        self._sweep_on()
        if self._supervision is not None:
            self._supervision.start()

    def reload_tls(self) -> bool:
        """Use changed TLS files for new connections; True if they had changed.

        Raises ConfigError, and keeps the old ones, if they can't be used.
        """
        tls = self._connector.tls
        return tls is not None and tls.reload()

    async def send(
        self, exchange: Exchange, method: str, target: bytes, host: str = "preserve"
    ) -> Response:
        """Send the exchange's request to one of the targets, and give back the answer's beginning.

        `target` is the request target on the wire, `host` the rule for the Host field, as in
        `RequestFields.make`. Sets `upstream`, `target` and `upstream_status` on the exchange and
        adds to `upstream_seconds`. The caller closes the response. Cancelled, it leaves nothing
        behind. Raises UpstreamError; ClientError if the request's body broke off; GatewayError.
        """
        request = exchange.request
        if method in ("TRACE", "OPTIONS"):
            answer = last_hop(request)
            if answer is not None:
                return answer
        fields = self._make_fields(request, host)
        began = self._now()
        exchange.upstream = self.name
        chosen = self._chooser.choose(exchange)
        exchange.target = chosen.label
        connection = self._pools[chosen].take(began, request.stream is not None)
        if connection is None:
            connection = await self._connect_in_time(exchange, chosen, began)
        may_repeat = True
        while True:
            waiter = self._begin(connection, exchange, method, target, fields, began)
            try:
                return await waiter
            except UpstreamError as error:
                if not (may_repeat and is_repeatable(error, request, method)):
                    self._count(exchange, connection.target, error, began)
                    raise
            except BaseException:
                if connection.abandon(waiter):
                    exchange.upstream_seconds += self._now() - began
                    connection.target.late(exchange, began, self._now())
                raise
            may_repeat = False
            connection = await self._reconnect(exchange, connection.target, began)

    def _begin(
        self,
        connection: UpstreamConnection,
        exchange: Exchange,
        method: str,
        target: bytes,
        fields: RawHeaders,
        began: float,
    ) -> asyncio.Future[Response]:
        """Write the request. The head is made here, because Host may depend on the target."""
        request = exchange.request
        body, stream = request.body, request.stream
        chosen = connection.target
        chosen.requests += 1
        length: int | None = 0
        if body is None and stream is not None:
            length = declared_length(request)
            framing = streaming_fields(length)
        else:
            body, stream = body or b"", None
            framing = framing_fields(method, body)
        try:
            head = encode_head(method, target, fields, chosen.authority, framing)
        except GatewayError:
            connection.close()
            raise
        waiter = connection.begin(exchange, method, head, body, began)
        if stream is not None and not waiter.done():
            connection.attach(Upload(connection, stream, length))
        return waiter

    async def _connect_in_time(
        self, exchange: Exchange, target: Target, began: float
    ) -> UpstreamConnection:
        """A connection within the attempt's timeout, if it has one."""
        try:
            async with asyncio.timeout(exchange.attempt_timeout):
                return await self._connect(exchange, target, began)
        except asyncio.CancelledError:
            chosen = next(each for each in self.targets if each.label == exchange.target)
            if self._pools[chosen].open < self._pools[chosen].limit:
                chosen.late(exchange, began, self._now())
            raise
        except TimeoutError as error:
            label = exchange.target
            detail = f"{label}: no connection within {exchange.attempt_timeout:g} s"
            failure = UpstreamError(ATTEMPT_TIMEOUT, detail, next_hop=label, sent=False)
            chosen = next(each for each in self.targets if each.label == label)
            self._count(exchange, chosen, failure, began)
            raise failure from error

    async def _connect(
        self, exchange: Exchange, target: Target, began: float
    ) -> UpstreamConnection:
        """A connection to `target`, or to the next target if it can't be reached."""
        tried = [each for each in self.targets if each.label in (exchange.tried or ())]
        while True:
            exchange.target = target.label
            target.active += 1
            try:
                return await self._pools[target].acquire()
            except UpstreamError as error:
                tried.append(target)
                following = self._chooser.choose_but(exchange, tried)
                if following is None or not exchange.may_try_another(target.label):
                    self._count(exchange, target, error, began)
                    raise
                self._count(exchange, target, error, self._now())
            finally:
                target.active -= 1
            target = following

    async def _reconnect(
        self, exchange: Exchange, target: Target, began: float
    ) -> UpstreamConnection:
        """A new connection to the same target, after one that was stale."""
        target.active += 1
        try:
            return await self._pools[target].connect_fresh()
        except UpstreamError as error:
            self._count(exchange, target, error, began)
            raise
        finally:
            target.active -= 1

    def _count(
        self, exchange: Exchange, target: Target, error: UpstreamError, began: float
    ) -> None:
        exchange.upstream_seconds += self._now() - began
        target.failed(error.kind, error.detail, self._clock.wall())

    async def connect_websocket(
        self, exchange: Exchange, target: bytes, host: str = "preserve"
    ) -> Response:
        """Open a WebSocket to one of the targets; see `open_websocket` for what comes back.

        Another target is tried if one can't be reached. Raises UpstreamError.
        """
        fields = self._make_fields(exchange.request, host)
        exchange.upstream = self.name
        tried: list[Target] = []
        chosen = self._chooser.choose(exchange)
        while True:
            exchange.target = chosen.label
            began = self._now()
            try:
                response = await self._open_websocket(exchange, chosen, target, fields)
            except UpstreamError as error:
                self._count(exchange, chosen, error, began)
                tried.append(chosen)
                following = self._chooser.choose_but(exchange, tried)
                if error.sent or following is None or not exchange.may_try_another(exchange.target):
                    raise
                chosen = following
            else:
                if chosen.watch is not None:
                    chosen.watch.answered(response.status)
                return response

    async def _open_websocket(
        self, exchange: Exchange, chosen: Target, target: bytes, fields: RawHeaders
    ) -> Response:
        where = chosen.address
        address: tuple[str, int] | str = where.path
        if not where.path:
            address = ((await self._connector.addresses(chosen))[0], where.port)
        authority = fields[0][1] if fields[0][0] == b"host" else chosen.authority
        tls = self._connector.tls
        # Few gateways ever see a WebSocket; the library takes a megabyte and a moment to load.
        module = await asyncio.to_thread(import_module, "gateway.upstream.websocket")
        chosen.active += 1
        return await module.open_websocket(  # type: ignore[no-any-return]
            exchange,
            authority=authority.decode("latin-1"),
            target=target.decode("latin-1"),
            headers=fields,
            address=address,
            tls=tls.context if tls is not None and where.tls else None,
            server_name=chosen.server_name or None,
            connect_timeout=self._config.connect_timeout,
            release=_Release(chosen),
        )

    def status(self) -> dict[str, Any]:
        """What the admin API shows: every target with its connections, counts and last error."""
        supervision = self._supervision
        targets = [
            target_status(pool, self._connector.current_addresses(target), supervision)
            for target, pool in self._pools.items()
        ]
        facts = {} if supervision is None else supervision.status()
        return {"name": self.name, "balance": self._config.balance, **facts, "targets": targets}

    def _publish(self) -> None:
        """Bring the metrics up to date, just before they are read."""
        if self._metrics is not None:
            for pool in self._pools.values():
                series = self._metrics.target(self.name, pool.target.label)
                pool.target.publish(series, len(pool.idle))
            if self._supervision is not None:
                self._supervision.publish()
            if self._closed and not self._is_active():
                before = self._metrics.before_snapshot
                self._metrics.before_snapshot = [each for each in before if each != self._publish]

    def _is_active(self) -> bool:
        return any(target.active for target in self.targets)

    def sweep(self) -> None:
        """Close idle connections that are too old or lead to addresses that are no longer used."""
        now = self._now()
        for target, pool in self._pools.items():
            pool.sweep(now, self._connector.current_addresses(target))

    def _sweep_on(self) -> None:
        self.sweep()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep_on)

    async def aclose(self) -> None:
        """Close idle connections; those in use close when their exchange ends.

        What is sent after this still works, on connections that are not kept.
        """
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for pool in self._pools.values():
            pool.close()
        if self._supervision is not None:
            await self._supervision.aclose()
        self._closed = True
        self._publish()
        await self._resolver.aclose()

    async def drain(self, within: float) -> bool:
        """Wait until no exchange is active, at most `within` seconds, then cut what is left.

        True if nothing had to be cut.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        # Polled, so that no exchange pays for telling when it was the last one.
        while self._is_active() and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        left = self._is_active()
        for pool in self._pools.values():
            pool.abort()
        return not left

    def __repr__(self) -> str:
        return f"<Upstream {self.name}: {', '.join(map(repr, self._pools.values()))}>"


class _Release:
    """Ends a target's active exchange, once."""

    __slots__ = ("_target",)

    def __init__(self, target: Target) -> None:
        self._target: Target | None = target

    def __call__(self) -> None:
        target, self._target = self._target, None
        if target is not None:
            target.active -= 1
