"""An identity provider over HTTP for tests: metadata, keys, introspection, and what goes wrong.

    async with IdentityProvider() as idp:
        token = idp.token(sub="ada")
        idp.rotate()

Everything it does wrong is an attribute to set: `status`, `delay`, `issuer_says`, `cache_control`.
`stop` and `start` keep its port. It signs with real keys; tokens that no library would make are put
together by `compact`.
"""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64decode, urlsafe_b64encode
from collections import Counter
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote_plus

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

_ALGORITHMS = get_default_algorithms()
AUDIENCE = "orders-api"


def b64(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def dump(value: Any) -> str:
    """JSON in base64url."""
    return b64(json.dumps(value, separators=(",", ":")).encode())


class SigningKey:
    """A private key, what is published of it, and signatures made with it."""

    def __init__(
        self, kid: str | None, algorithm: str = "RS256", *, bits: int = 2048, curve: Any = None
    ) -> None:
        self.kid = kid
        self.algorithm = algorithm
        if algorithm.startswith(("RS", "PS")):
            self.private: Any = rsa.generate_private_key(65537, bits)
        elif algorithm == "EdDSA":
            made = ed448.Ed448PrivateKey if curve == "Ed448" else ed25519.Ed25519PrivateKey
            self.private = made.generate()
        else:
            curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
            chosen: Any = curve or curves[algorithm]
            self.private = ec.generate_private_key(chosen())

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public key as a JWK."""
        kind = type(_ALGORITHMS[self.algorithm])
        shown = kind.to_jwk(self.private.public_key(), as_dict=True)
        shown.pop("key_ops", None)
        named = {} if self.kid is None else {"kid": self.kid}
        return {**shown, **named, "use": "sig", **more}

    def private_jwk(self) -> dict[str, Any]:
        """The private key as a JWK, which nobody should publish."""
        kind = type(_ALGORITHMS[self.algorithm])
        return {**kind.to_jwk(self.private, as_dict=True), "kid": self.kid}

    def sign(self, signing_input: bytes, algorithm: str | None = None) -> bytes:
        """A signature in JWS form."""
        return _ALGORITHMS[algorithm or self.algorithm].sign(signing_input, self.private)

    def compact(
        self,
        header: Any,
        claims: Any,
        *,
        algorithm: str | None = None,
        signature: bytes | None = None,
    ) -> str:
        """A token of this header and these claims: objects, or text that stands for JSON."""
        parts = [
            b64(each.encode()) if isinstance(each, str) else dump(each) for each in (header, claims)
        ]
        signing_input = ".".join(parts)
        if signature is None:
            signature = self.sign(signing_input.encode(), algorithm)
        return f"{signing_input}.{b64(signature)}"


class IdentityProvider:
    """One issuer on a port of its own."""

    def __init__(self, key: SigningKey | None = None, *, path: str = "") -> None:
        self.key = key or SigningKey("k1")
        self.published: list[dict[str, Any]] = [self.key.jwk()]
        self.path = path
        self.port = 1  # until it listens
        self._listened = 0
        self.calls: Counter[str] = Counter()
        self.status = 200
        self.delay = 0.0
        self.gate: asyncio.Event | None = None
        self.issuer_says: str | None = None
        self.oidc = True
        self.body: bytes | None = None
        self.cache_control = ""
        self.tokens: dict[str, dict[str, Any]] = {}
        self.client = ("gw", "s3cret+/: é")
        self.asked: list[dict[str, str]] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def staff(self, options: str = "") -> str:
        """A line of configuration: the identity `staff` takes this provider's tokens."""
        more = f", {options}" if options else ""
        settings = f'type: jwt, issuer: "{self.issuer}", audience: {AUDIENCE}{more}'
        return f"identities: {{staff: {{{settings}}}}}\n"

    @property
    def jwks_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    @property
    def introspect_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/introspect"

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims; a change to None takes one away."""
        now = int(time.time())
        made = {"iss": self.issuer, "aud": AUDIENCE, "sub": "ada", "client_id": "web", "iat": now,
                "exp": now + 300, "jti": "1", "scope": "orders:read orders:write"}  # fmt: skip
        return {name: value for name, value in {**made, **changes}.items() if value is not None}

    def token(
        self, key: SigningKey | None = None, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """A signed token."""
        key = key or self.key
        made: dict[str, Any] = {"alg": key.algorithm, "typ": "JWT"}
        if key.kid is not None:
            made["kid"] = key.kid
        made = {
            name: value for name, value in {**made, **(header or {})}.items() if value is not None
        }
        return key.compact(made, self.claims(**changes))

    def rotate(self, kid: str, *, keep: bool = False) -> SigningKey:
        """Sign with a new key, and publish it in place of the old ones, or beside them."""
        self.key = SigningKey(kid, self.key.algorithm)
        self.published = [*(self.published if keep else []), self.key.jwk()]
        return self.key

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, again on the same port after `stop`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._listened)
        self.port = self._listened = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be gone: connections are cut, new ones refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *fields = head.decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (f.partition(":") for f in fields)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(writer, line.split(" ")[1], headers, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, target: str, headers: dict[str, str], body: bytes
    ) -> None:
        self.calls[target] += 1
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.gate is not None:
            await self.gate.wait()
        status, document = self._document(target, headers, body)
        data = self.body if self.body is not None else json.dumps(document).encode()
        cache = f"cache-control: {self.cache_control}\r\n" if self.cache_control else ""
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{cache}"
            f"content-length: {len(data)}\r\n\r\n".encode()
            + data
        )
        await writer.drain()

    def _document(self, target: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        if self.status != 200:
            return self.status, {"error": "broken"}
        metadata = {"issuer": self.issuer_says or self.issuer, "jwks_uri": self.jwks_url}
        if target == f"{self.path}/.well-known/openid-configuration" and self.oidc:
            return 200, metadata
        if target == f"/.well-known/oauth-authorization-server{self.path}":
            return 200, metadata
        if target == "/keys":
            return 200, {"keys": self.published}
        if target == "/introspect":
            return self._introspect(headers, body)
        return 404, {}

    def _introspect(self, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        scheme, _, pair = headers.get("authorization", "").partition(" ")
        user, _, password = b64decode(pair).decode().partition(":")
        if scheme != "Basic" or (unquote_plus(user), unquote_plus(password)) != self.client:
            return 401, {"error": "invalid_client"}
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        self.asked.append(form)
        return 200, self.tokens.get(form["token"], {"active": False})
