"""Signatures on what is sent: the published vectors, and our own check of them."""

from __future__ import annotations

from base64 import b64encode

import pytest

from gateway.delivery.sign import Signer
from gateway.message import Headers


def sign(signer: Signer, message: str, at: float, body: bytes) -> dict[bytes, bytes]:
    headers = Headers([(b"webhook-signature", b"the sender's own")])
    signer.sign(headers, message, at, body)
    assert len(headers.raw) == 3
    return dict(headers.raw)


def test_the_published_vector() -> None:
    """That of the Standard Webhooks reference libraries."""
    signer = Signer(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    message, at = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9
    assert sign(signer, message, at, b'{"test": 2432232314}') == {
        b"webhook-id": message.encode(),
        b"webhook-timestamp": b"1614265330",
        b"webhook-signature": b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_several_secrets() -> None:
    """Each signs, in their order; a text that is no whsec_ is used as it is."""
    old, new = Signer(["one"]), Signer(["two"])
    both = Signer(["two", "one"])
    field = b"webhook-signature"
    parts = [sign(each, "m", 1.0, b"b")[field] for each in (new, old)]
    assert sign(both, "m", 1.0, b"b")[field].split(b" ") == parts
    same = Signer(["whsec_" + b64encode(b"one").decode()])
    assert sign(same, "m", 1.0, b"b")[field] == parts[1]


@pytest.mark.parametrize("secret", ["whsec_", "whsec_%%%", "whsec_abc", "whsec_\N{EURO SIGN}"])
def test_secrets_that_are_none(secret: str) -> None:
    """Said without saying it."""
    with pytest.raises(ValueError, match=r"whsec_|empty") as caught:
        Signer([secret])
    assert secret[6:] == "" or secret not in str(caught.value)
