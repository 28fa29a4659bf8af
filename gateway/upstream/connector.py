"""Opening connections: TCP, TLS, unix sockets, and what each failure is called.

The one place where an errno or an ssl error becomes a word of the taxonomy. Nothing was sent when
this fails, so every error says `sent=False`. Pools and target choice are elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from gateway.errors import (
    CONNECT_FAILED,
    CONNECT_TIMEOUT,
    DNS_FAILED,
    TLS_CERTIFICATE,
    TLS_FAILED,
    ErrorCode,
    UpstreamError,
)
from gateway.upstream.resolver import Resolver, is_address
from gateway.upstream.target import Target
from gateway.upstream.tls import ClientTls

# A protocol by duck type: one that derives from asyncio's can't be compiled to a native class.
_P = TypeVar("_P")

# A name with many dead addresses must not use up the exchange's whole time.
_MAX_ADDRESSES: Final = 4


class Connector:
    """Opens connections to the targets of one upstream.

    `connect_timeout` bounds each `connect`, TLS and every address of the name included, in seconds.
    `tls` must be set before a target with TLS is connected to.
    """

    def __init__(self, resolver: Resolver, connect_timeout: float) -> None:
        self.resolver = resolver
        self.tls: ClientTls | None = None
        self.connect_timeout = connect_timeout
        self._turn = 0

    async def connect(self, target: Target, factory: Callable[[], _P]) -> _P:
        """A connected protocol made by `factory`.

        The addresses of a name are used in turn, and the next one is tried when one refuses.
        `factory` may be called several times; what it made must cope with `connection_made` coming
        after the caller gave up. Raises UpstreamError: CONNECT_FAILED, CONNECT_TIMEOUT, DNS_FAILED,
        TLS_FAILED or TLS_CERTIFICATE.
        """
        stage = DNS_FAILED
        try:
            async with asyncio.timeout(self.connect_timeout):
                if target.address.path:
                    stage = CONNECT_TIMEOUT
                    return await self._connect_unix(target, factory)
                addresses = await self.addresses(target)
                stage = CONNECT_TIMEOUT
                return await self._connect_any(target, addresses, factory)
        except TimeoutError as error:
            detail = f"{target.label}: no answer within {self.connect_timeout:g} s"
            raise _error(stage, detail, target) from error

    async def addresses(self, target: Target) -> list[str]:
        """The target's IP addresses. Raises UpstreamError(DNS_FAILED)."""
        host = target.address.host
        if is_address(host):
            return [host]
        return await self.resolver.resolve(host, target.address.port)

    def current_addresses(self, target: Target) -> list[str]:
        """The addresses that the target's name has now; empty if that is not known or no matter."""
        address = target.address
        if address.path or is_address(address.host):
            return []
        return self.resolver.known(address.host, address.port)

    async def _connect_unix(self, target: Target, factory: Callable[[], _P]) -> _P:
        loop: Any = asyncio.get_running_loop()
        protocol: _P
        try:
            _, protocol = await loop.create_unix_connection(factory, target.address.path)
        except TimeoutError:
            raise
        except OSError as error:
            _raise_for(error, target)
        return protocol

    async def _connect_any(
        self, target: Target, addresses: list[str], factory: Callable[[], _P]
    ) -> _P:
        self._turn += 1
        turn = self._turn % len(addresses)
        order = [*addresses[turn:], *addresses[:turn]][:_MAX_ADDRESSES]
        for address in order:
            try:
                return await self._connect_address(target, address, factory)
            except UpstreamError as error:
                if address == order[-1] or error.kind is not CONNECT_FAILED:
                    raise
        raise AssertionError("a name has at least one address")

    async def _connect_address(self, target: Target, address: str, factory: Callable[[], _P]) -> _P:
        loop: Any = asyncio.get_running_loop()
        protocol: _P
        port = target.address.port
        try:
            if self.tls is None or not target.address.tls:
                _, protocol = await loop.create_connection(factory, address, port)
            else:
                _, protocol = await loop.create_connection(
                    factory, address, port, ssl=self.tls.context, server_hostname=target.server_name
                )
        except TimeoutError as error:
            # The kernel's own ETIMEDOUT; the time-out above comes as a cancellation.
            raise _error(CONNECT_TIMEOUT, f"{target.label}: {address} timed out", target) from error
        except (OSError, ssl.CertificateError) as error:
            _raise_for(error, target)
        return protocol


def _raise_for(error: OSError | ValueError, target: Target) -> NoReturn:
    kind = CONNECT_FAILED
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        kind, reason = TLS_CERTIFICATE, error.verify_message
    elif isinstance(error, ssl.SSLError):
        kind, reason = TLS_FAILED, error.reason or "the handshake failed"
    elif target.address.tls and isinstance(error, ConnectionResetError | ConnectionAbortedError):
        kind, reason = TLS_FAILED, "the connection was closed during the handshake"
    raise _error(kind, f"{target.label}: {reason or type(error).__name__}", target) from error


def _error(kind: ErrorCode, detail: str, target: Target) -> UpstreamError:
    return UpstreamError(kind, detail, next_hop=target.label, sent=False)
