"""Credentials for the requests of a rehearsal, and identities that accept them.

No identity provider is asked and no secret of the configuration is used. A token's issuer gets a
key of ours, an API key is added, a webhook is signed with a secret of ours in the plainest scheme,
an introspection endpoint is stood in for. A client certificate can't be stood in for, because the
rehearsal's listener has no TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.chaos.standin import Answer
from gateway.config.model import IdentityConfig
from gateway.config.model_key import ApiKey, ApiKeyIdentity, WebhookIdentity
from gateway.config.model_token import IntrospectionIdentity, JwtIdentity, TokenIdentity
from gateway.policies.auth.key_table import hash_of, new_key
from gateway.policies.auth.policy import AuthConfig

CONSUMER: Final = "chaos"
_SIGNATURE: Final = "X-Lockgate-Chaos-Signature"
_LIFETIME_S: Final = 24 * 3600
_KID: Final = "chaos"


class NoStandIn(Exception):
    """The route can't be rehearsed. The text says why."""


class Wallet:
    """Identities with what they accept. Make it, ask for `replaced`, then for `fields`.

    `asks` are what routes ask of their callers; `folder` takes the file of keys.
    """

    def __init__(
        self,
        identities: Mapping[str, IdentityConfig],
        asks: Iterable[AuthConfig],
        folder: Path,
        rng: Random,
    ) -> None:
        self.notes: list[str] = []
        self._identities = identities
        self._folder = folder
        self._scopes: list[str] = []
        self._claims: dict[str, Any] = {}
        self._used: set[str] = set()
        for each in asks:
            self._scopes += [*each.scopes, *each.scopes_any]
            self._claims |= each.claims
            self._used |= set(each.any)
        self._scopes = list(dict.fromkeys(self._scopes))
        self._signer = _Signer(rng)
        self._key = new_key(rng.randbytes)
        self._secret = rng.randbytes(24).hex()
        self._tokens: dict[str, str] = {}

    def introspections(self) -> dict[str, Answer]:
        """What the endpoint of each introspection identity answers, by the identity's name."""
        found = {}
        for name, identity in self._identities.items():
            if isinstance(identity, IntrospectionIdentity) and name in self._used:
                body = {"active": True, **self._claims_of(identity)}
                found[name] = Answer(body=json.dumps(body).encode())
        return found

    def replaced(self, endpoints: Mapping[str, str]) -> dict[str, IdentityConfig]:
        """The identities as the rehearsal has them; `endpoints` are URLs by identity."""
        made = {}
        for name, identity in self._identities.items():
            made[name] = self._replaced(name, identity, endpoints) or identity
            if made[name] is not identity and name in self._used:
                self.notes.append(f"identity {name}: credentials of the rehearsal's own")
        return made

    def _replaced(
        self, name: str, identity: IdentityConfig, endpoints: Mapping[str, str]
    ) -> IdentityConfig | None:
        if isinstance(identity, JwtIdentity):
            file = self._folder / "jwks.json"
            file.write_text(json.dumps({"keys": [self._signer.jwk()]}))
            changes: dict[str, Any] = {"jwks": str(file), "algorithms": ["ES256"],
                                       "certificate_bound": False}  # fmt: skip
            return identity.model_copy(update=changes)
        if isinstance(identity, IntrospectionIdentity) and name in endpoints:
            changes = {"url": endpoints[name], "certificate_bound": False}
            return identity.model_copy(update=changes)
        if isinstance(identity, ApiKeyIdentity):
            # Of a consumer that is known, so that the limits of its tier are those that are met.
            entry = ApiKey.model_validate(
                {"consumer": identity.keys[0].consumer, "hash": hash_of(self._key),
                 "scopes": self._scopes}
            )  # fmt: skip
            return identity.model_copy(update={"keys": [*identity.keys, entry]})
        if isinstance(identity, WebhookIdentity):
            return WebhookIdentity.model_validate(
                {"type": "webhook", "scheme": "hmac", "header": _SIGNATURE,
                 "secret": self._secret, "max_body": identity.max_body}
            )  # fmt: skip
        return None

    def fields(self, auth: AuthConfig, body: bytes) -> list[tuple[str, str]]:
        """The header fields that prove who the client is. Raises NoStandIn."""
        reasons = []
        for name in auth.any:
            identity = self._identities.get(name)
            if isinstance(identity, TokenIdentity):
                return [("Authorization", f"Bearer {self._token(name, identity)}")]
            if isinstance(identity, ApiKeyIdentity):
                scheme = "ApiKey " if identity.header.lower() == "authorization" else ""
                return [(identity.header, scheme + self._key)]
            if isinstance(identity, WebhookIdentity):
                made = hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
                return [(_SIGNATURE, made)]
            reasons.append(f"{name} asks for a client certificate")
        if auth.optional:
            return []
        raise NoStandIn("; ".join(reasons) or "it names no identity")

    def _token(self, name: str, identity: TokenIdentity) -> str:
        if name not in self._tokens:
            if isinstance(identity, JwtIdentity):
                kind = "at+jwt" if identity.profile else "JWT"
                self._tokens[name] = self._signer.token(kind, self._claims_of(identity))
            else:
                self._tokens[name] = self._key
        return self._tokens[name]

    def _claims_of(self, identity: TokenIdentity) -> dict[str, Any]:
        now = int(time.time())
        claims: dict[str, Any] = {"sub": CONSUMER, "client_id": CONSUMER, "jti": CONSUMER,
                                  "iat": now, "exp": now + _LIFETIME_S}  # fmt: skip
        issuer = getattr(identity, "issuer", None)
        audience = getattr(identity, "audience", None)
        if issuer is not None:
            claims["iss"] = issuer
        if audience is not None:
            claims["aud"] = audience if isinstance(audience, str) else audience[0]
        for name, value in {**self._claims, **identity.require}.items():
            _put(claims, name, value[0] if isinstance(value, list) and value else value)
        _put(claims, identity.scopes_claim, " ".join(self._scopes))
        consumer = identity.consumer_claim.split("|")[0]
        if consumer not in claims:
            _put(claims, consumer, CONSUMER)
        return claims


def _put(claims: dict[str, Any], name: str, value: Any) -> None:
    """Set a claim; dots lead inside."""
    *above, last = name.split(".")
    for step in above:
        inner = claims.setdefault(step, {})
        if not isinstance(inner, dict):
            return
        claims = inner
    claims[last] = value


class _Signer:
    """One key, and tokens signed with it (RFC 7515, RFC 7518 section 3.4)."""

    def __init__(self, rng: Random) -> None:
        # From the seed: it protects nothing but the rehearsal from surprises.
        self._private = ec.derive_private_key(rng.getrandbits(255) | 1, ec.SECP256R1())

    def jwk(self) -> dict[str, str]:
        numbers = self._private.public_key().public_numbers()
        x, y = (_text(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256",
                "kid": _KID}  # fmt: skip

    def token(self, kind: str, claims: Mapping[str, Any]) -> str:
        header = {"alg": "ES256", "typ": kind, "kid": _KID}
        signed = ".".join(_text(json.dumps(each).encode()) for each in (header, claims))
        made = self._private.sign(signed.encode(), ec.ECDSA(SHA256()))
        r, s = decode_dss_signature(made)
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
