"""Signatures on what is sent, by the Standard Webhooks specification (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from gateway.message import Headers

_PREFIX: Final = "whsec_"


class Signer:
    """Signs with each of the secrets, the newest first, so that receivers can change over.

    A secret is `whsec_` and base64; any other text is used as it is. Raises ValueError for one that
    can't be read; the text does not name it.
    """

    def __init__(self, secrets: list[str]) -> None:
        self._keys = [_key(secret) for secret in secrets]

    def sign(self, headers: Headers, message_id: str, at: float, body: bytes) -> None:
        """Write `webhook-id`, `webhook-timestamp` (seconds) and `webhook-signature`."""
        stamp = str(int(at)).encode()
        content = b"%b.%b.%b" % (message_id.encode(), stamp, body)
        signatures = [
            b"v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())
            for key in self._keys
        ]
        headers.set(b"webhook-id", message_id.encode())
        headers.set(b"webhook-timestamp", stamp)
        headers.set(b"webhook-signature", b" ".join(signatures))


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("whsec_ is followed by base64") from None
    if not key:
        raise ValueError("the secret is empty")
    return key
