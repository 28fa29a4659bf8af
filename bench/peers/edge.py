"""What the proxies are given when they are to check who calls: a key, and a token it signed."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

ISSUER: Final = "https://idp.bench"
AUDIENCE: Final = "bench"
_LIFETIME_S: Final = 6 * 3600


@dataclass(frozen=True)
class Edge:
    """`jwks` is the key set as JSON, `token` a JWT (RS256) of one caller."""

    jwks: str
    token: str

    @property
    def header(self) -> str:
        """The line that a client sends."""
        return f"Authorization: Bearer {self.token}"


def make_edge() -> Edge:
    """A new key of 2048 bits, and a token that lives longer than any measurement."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "RSA",
        "kid": "bench",
        "alg": "RS256",
        "use": "sig",
        "n": _number(numbers.n),
        "e": _number(numbers.e),
    }
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "billing-bot",
        "client_id": "billing-bot",
        "scope": "orders:read",
        "iat": now,
        "exp": now + _LIFETIME_S,
    }
    signed = f"{_part({'alg': 'RS256', 'typ': 'JWT', 'kid': 'bench'})}.{_part(claims)}"
    signature = key.sign(signed.encode("ascii"), padding.PKCS1v15(), SHA256())
    return Edge(json.dumps({"keys": [jwk]}), f"{signed}.{_base64(signature)}")


def _part(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
