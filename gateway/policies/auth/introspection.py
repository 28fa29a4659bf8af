"""introspection: tokens that the authorization server is asked about (RFC 7662).

Answers are kept for a while, by the token's digest: good ones for `cache` and never beyond the
token's `exp`, bad ones briefly, so that a client which repeats a bad token does not become a flood
at the server. One question at a time for each token, and after failures in a row none for a moment.
A server that can't be asked, or does not answer as RFC 7662 says, is a 503 and never a 401.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Awaitable
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import quote_plus

from gateway.clock import Clock
from gateway.config.model_token import IntrospectionIdentity
from gateway.control.client import ControlClient, ControlError, Trust
from gateway.errors import Rejection
from gateway.message import Exchange
from gateway.observability.families import IDENTITY_PROVIDER_CALLS, Counts
from gateway.policies.auth import validity
from gateway.policies.auth.bearer import FIELD, BearerIdentity
from gateway.policies.auth.claims import Reader
from gateway.policies.auth.identity import Verdict, unavailable
from gateway.policies.auth.kinds import directory, keep
from gateway.policies.auth.pause import Pause
from gateway.policies.auth.remembered import Entry, Remembered
from gateway.policies.auth.strict_json import NotStrict, parse_object
from gateway.policies.auth.validity import Unacceptable
from gateway.policies.base import BuildContext

logger = logging.getLogger("gateway.auth")

REFUSED_FOR_S: Final = 5.0
MAX_REFUSED: Final = 10_000
MAX_QUESTIONS: Final = 1_000
_MAX_ANSWER: Final = 64 * 1024
# What servers call a token that is for getting others, and for nothing else.
_REFRESH: Final = frozenset({"refresh", "refresh_token"})


def build(name: str, config: IntrospectionIdentity, context: BuildContext) -> AskedToken:
    """The identity; pure, nothing is asked yet."""
    http = context.http()
    counts = context.metrics.counts(IDENTITY_PROVIDER_CALLS)
    reader = Reader(
        name,
        consumer=config.consumer_claim,
        scopes=config.scopes_claim,
        require=config.require,
        tiers=directory(context).tiers,
    )
    return keep(
        name,
        config,
        context,
        lambda: AskedToken(
            name, config, http=http, reader=reader, clock=context.clock, counts=counts
        ),
    )


class AskedToken(BearerIdentity):
    """The tokens of one authorization server."""

    def __init__(
        self,
        name: str,
        config: IntrospectionIdentity,
        *,
        http: ControlClient,
        reader: Reader,
        clock: Clock,
        counts: Counts,
    ) -> None:
        super().__init__(name, config.max_token)
        self._config = config
        audience = config.audience
        self._audiences = frozenset(
            [audience] if isinstance(audience, str) else (audience or ())
        )  # fmt: skip
        self._http = http
        self._trust = Trust(ca=config.ca)
        # RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
        secret = config.client_secret.get_secret_value()
        pair = f"{quote_plus(config.client_id)}:{quote_plus(secret)}"
        self._authorization = f"Basic {b64encode(pair.encode()).decode('ascii')}"
        self._reader = reader
        self._clock = clock
        self._counts = counts
        self._pause = Pause()
        self._questions: dict[bytes, asyncio.Task[Entry | Rejection]] = {}
        self._refused: dict[bytes, tuple[float, Rejection]] = {}
        self.remembered = Remembered()

    async def aclose(self) -> None:
        """Cut the calls under way; who waits for them gets a 503."""
        tasks = list(self._questions.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def authenticate(self, exchange: Exchange) -> Verdict | Awaitable[Verdict]:
        """Judge the token in Authorization; at once, if it was asked about lately."""
        headers = exchange.request.headers
        credentials = headers.index.get(FIELD)
        if credentials is None:
            return None
        if len(headers.index) == len(headers.raw) and len(credentials) <= self._max_token:
            entry = self.remembered.find(credentials)
            if entry is not None and entry.begins <= self._clock.wall() < entry.ends:
                return self._bound(exchange, entry)
        token = self.token(exchange, credentials)
        if not isinstance(token, bytes):
            return token
        digest = sha256(credentials).digest()
        refused = self._refused.get(digest)
        if refused is not None and self._clock.monotonic() < refused[0]:
            return refused[1]
        return self._ask(exchange, credentials, token, digest)

    async def _ask(
        self, exchange: Exchange, credentials: bytes, token: bytes, digest: bytes
    ) -> Verdict:
        task = self._questions.get(digest)
        if task is None:
            pause = self._pause.left(self._clock.monotonic())
            if pause or len(self._questions) >= MAX_QUESTIONS:
                return self._unavailable(pause)
            asking = self._question(credentials, token, digest)
            task = self._questions[digest] = asyncio.create_task(asking, name=f"ask {self.name}")
            task.add_done_callback(lambda _: self._questions.pop(digest, None))
        # A client that leaves must not take the answer from others who wait for it. A task that
        # was cancelled itself (the identity is being closed) is no answer.
        await asyncio.wait([task])
        if task.cancelled():
            return self._unavailable(1.0)
        found = task.result()
        if isinstance(found, Rejection):
            return found
        return self._bound(exchange, found)

    def _unavailable(self, retry_after: float) -> Rejection:
        return unavailable(f"the identity {self.name} can't check tokens now", retry_after)

    async def _question(self, credentials: bytes, token: bytes, digest: bytes) -> Entry | Rejection:
        try:
            answer = await self._call(token)
        except (ControlError, NotStrict) as error:
            self._counts.add(self.name, "failed")
            if self._pause.failed(self._clock.monotonic()):
                logger.warning(
                    "can't introspect tokens: %s", error.reason, extra={"identity": self.name}
                )
            return self._unavailable(self._pause.left(self._clock.monotonic()))
        self._counts.add(self.name, "ok")
        self._pause.succeeded()
        try:
            found = self._read(answer)
        except Unacceptable as error:
            found = self.refuse(error.reason, foreign=error.foreign)
        if isinstance(found, Rejection):
            self._note_refused(digest, found)
        else:
            self.remembered.add(credentials, found)
        return found

    async def _call(self, token: bytes) -> dict[str, Any]:
        reply = await self._http.post_form(
            self._config.url,
            {"token": token.decode("ascii"), "token_type_hint": "access_token"},
            headers={"authorization": self._authorization},
            trust=self._trust,
            timeout=self._config.timeout,
            max_bytes=_MAX_ANSWER,
        )
        if reply.status != 200:
            # Also 401: it is the gateway that was refused, not the caller.
            raise ControlError(f"the server answered {reply.status}")
        answer = parse_object(reply.body)
        if type(answer.get("active")) is not bool:
            raise ControlError("the answer does not say whether the token is active")
        return answer

    def _read(self, answer: dict[str, Any]) -> Entry | Rejection:
        """What the answer says. Raises Unacceptable."""
        if answer["active"] is not True:
            return self.refuse("the token is not active")
        if self._config.issuer is not None:
            validity.check_issuer(answer, self._config.issuer)
        if self._audiences:
            validity.check_audience(answer, self._audiences)
        if {str(answer.get(name)).lower() for name in ("token_type", "typ")} & _REFRESH:
            return self.refuse("the token is a refresh token")
        now = self._clock.wall()
        window = validity.window(answer, now, self._config.leeway, must_end=False)
        if window.thumbprint is None and self._config.certificate_bound:
            return self.refuse("the token is not bound to a client certificate")
        principal = self._reader.principal(answer)
        if isinstance(principal, str):
            return self.refuse(principal)
        if isinstance(principal, Rejection):
            return principal
        # The server said itself when the token ends: no leeway beyond that for what is kept.
        ends = min(window.ends - self._config.leeway, now + self._config.cache)
        return Entry(principal, window.begins, ends, window.thumbprint)

    def _note_refused(self, digest: bytes, refusal: Rejection) -> None:
        if len(self._refused) >= MAX_REFUSED:
            self._refused.clear()
        keep_for = min(REFUSED_FOR_S, self._config.cache)
        self._refused[digest] = (self._clock.monotonic() + keep_for, refusal)

    def _bound(self, exchange: Exchange, entry: Entry) -> Verdict:
        """Its principal, unless the token is bound to another certificate (RFC 8705 section 3)."""
        if entry.thumbprint is None:
            return entry.principal
        certificate = exchange.request.certificate
        if certificate is not None and compare_digest(certificate.thumbprint, entry.thumbprint):
            return entry.principal
        return self.refuse("the token is bound to another client certificate")
