"""The HTTP client of the control plane: few calls, small answers, every one bounded.

The only module that imports httpx; its exceptions end here, as `ControlError`. Redirects are not
followed, the environment's proxies are not used, and a name or password in a URL never reaches an
error's text. Proxied traffic never comes here (`gateway/upstream/` is for that).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx

TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 1024 * 1024
_CONNECTIONS: Final = 32
_FORM: Final = "application/x-www-form-urlencoded"

# It logs every call with its whole URL at level INFO.
logging.getLogger("httpx").setLevel(logging.WARNING)


class ControlError(Exception):
    """A call that gave no answer. `reason` says why in a few words, without secrets."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Trust:
    """The files of a call's TLS, all PEM: whom to trust (the system's authorities if left out), and
    the client certificate with its key.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole. Field names are lower case; a field sent twice is joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


SYSTEM: Final = Trust()


class ControlClient:
    """Makes calls, and keeps connections for the next ones. One for all who need it.

    `timeout` bounds the whole call in seconds, `max_bytes` the answer's body.
    """

    def __init__(self) -> None:
        # By the files of TLS; None for calls without TLS, which need none.
        self._clients: dict[Trust | None, tuple[object, httpx.AsyncClient]] = {}
        self._retired: list[httpx.AsyncClient] = []

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        trust: Trust = SYSTEM,
        timeout: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
    ) -> Reply:
        """GET, whatever the answer's status. Raises ControlError."""
        return await self._send(
            "GET", url, trust=trust, timeout=timeout, max_bytes=max_bytes, headers=headers or {}
        )

    async def post_form(
        self,
        url: str,
        form: Mapping[str, str] | Sequence[tuple[str, str]],
        *,
        headers: Mapping[str, str] | None = None,
        trust: Trust = SYSTEM,
        timeout: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
    ) -> Reply:
        """POST a form, whatever the answer's status. Raises ControlError.

        Sent a second time if the connection turns out to have been closed: for calls that may be
        repeated.
        """
        return await self._send(
            "POST", url, trust=trust, timeout=timeout, max_bytes=max_bytes,
            headers={**(headers or {}), "content-type": _FORM}, content=urlencode(form).encode(),
        )  # fmt: skip

    async def post(
        self,
        url: str,
        content: bytes,
        *,
        headers: Mapping[str, str],
        trust: Trust = SYSTEM,
        timeout: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
    ) -> Reply:
        """POST these bytes, whatever the answer's status. Raises ControlError.

        Sent a second time if the connection turns out to have been closed: for calls that may be
        repeated.
        """
        return await self._send(
            "POST", url, trust=trust, timeout=timeout, max_bytes=max_bytes, headers=headers,
            content=content,
        )  # fmt: skip

    async def aclose(self) -> None:
        """Close every connection; calls under way fail."""
        clients = [client for _, client in self._clients.values()] + self._retired
        self._clients, self._retired = {}, []
        for client in clients:
            await client.aclose()

    async def _send(
        self, method: str, url: str, *, trust: Trust, timeout: float, max_bytes: int, **what: Any
    ) -> Reply:
        try:
            async with asyncio.timeout(timeout):
                client = await self._client(trust if url.startswith("https:") else None)
                request = client.build_request(method, url, timeout=timeout, **what)
                try:
                    return await self._exchange(client, request, max_bytes)
                except httpx.RemoteProtocolError:
                    # An idle connection that the other side had closed.
                    return await self._exchange(client, request, max_bytes)
        except TimeoutError:
            raise ControlError(f"no answer within {timeout:g} s") from None
        except httpx.TimeoutException:
            raise ControlError(f"no answer within {timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # httpx's texts may repeat the URL; the kind of error says what is needed.
            cause = error.__cause__ or error.__context__ or error
            raise ControlError(_reason(error, cause)) from None

    async def _exchange(
        self, client: httpx.AsyncClient, request: httpx.Request, max_bytes: int
    ) -> Reply:
        response = await client.send(request, stream=True)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ControlError("the answer is compressed, which was not asked for")
            pieces: list[bytes] = []
            left = max_bytes
            async for piece in response.aiter_raw():
                left -= len(piece)
                if left < 0:
                    raise ControlError(f"the answer is larger than {max_bytes} bytes")
                pieces.append(piece)
            return Reply(response.status_code, dict(response.headers), b"".join(pieces))
        finally:
            await response.aclose()

    async def _client(self, trust: Trust | None) -> httpx.AsyncClient:
        kept = self._clients.get(trust)
        version = _version(trust)
        if kept is not None and kept[0] == version:
            return kept[1]
        # Reading the authorities takes some milliseconds.
        context = await asyncio.to_thread(_tls, trust) if trust is not None else _no_tls()
        kept = self._clients.get(trust)
        if kept is not None:
            if kept[0] == version:
                return kept[1]
            self._retired.append(kept[1])
        client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=30.0),
            headers={
                "user-agent": "lockgate",
                "accept": "application/json",
                "accept-encoding": "identity",
            },
        )
        self._clients[trust] = (version, client)
        return client


def _version(trust: Trust | None) -> object:
    """Something that changes when one of the files does."""
    named = (trust.ca, trust.cert, trust.key) if trust is not None else ()
    files = [each for each in named if each is not None]
    if not files:
        return None
    return [(status.st_mtime_ns, status.st_size, status.st_ino) for status in map(Path.stat, files)]


def _no_tls() -> ssl.SSLContext:
    """What a client without TLS is given: it trusts nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _tls(trust: Trust) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trust.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.cert is not None:
        # The empty password keeps OpenSSL from asking for one at the terminal.
        context.load_cert_chain(trust.cert, trust.key, password="")
    return context


def _reason(error: Exception, cause: BaseException) -> str:
    known = {
        httpx.ConnectError: "the connection failed",
        httpx.UnsupportedProtocol: "the URL is neither http nor https",
        httpx.InvalidURL: "the URL can't be used",
        httpx.RemoteProtocolError: "the answer broke off or is no HTTP",
        httpx.ReadError: "the connection broke",
    }
    text = next((words for kind, words in known.items() if isinstance(error, kind)), "it failed")
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    detail = cause.strerror if isinstance(cause, OSError) and cause.strerror else ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        detail = f"certificate: {cause.verify_message}"
    return f"{text} ({detail})" if detail else f"{text} ({type(error).__name__})"
