"""How senders sign their webhooks: what a request claims, and whether a secret bears it out.

Pure: header fields and bytes in, facts out. Every scheme signs `before + body + after` with an
HMAC, where `before` and `after` come from header fields; they differ in where things stand. What
does not read as the scheme says is a `Malformed`, never an exception of another kind: all of it is
the sender's to choose.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from gateway.message import Headers

Algorithm = Literal["sha256", "sha512"]
Encoding = Literal["hex", "base64"]

# Signatures looked at in one request: a sender that rotates keys sends two or three.
MAX_SIGNATURES: Final = 16
MAX_ID: Final = 256
_MAX_FIELD: Final = 4096
_SIZES: Final = {"sha256": 32, "sha512": 64}
# From here on (the year 5138) a Unix time is in milliseconds.
_MILLISECONDS: Final = 100_000_000_000
_DIGITS: Final = re.compile(rb"[0-9]{1,14}")
_ID: Final = re.compile(rb"[!-~]{1,%d}" % MAX_ID)
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2})+")
_PLACEHOLDER: Final = re.compile(r"\{(\w*)\}")
_STRIPE_ID: Final = re.compile(rb"[0-9A-Za-z_]{1,128}")


class _Event(msgspec.Struct, gc=False):
    """The one member that is looked at; what stands around it is skipped."""

    id: str


_EVENT: Final = msgspec.json.Decoder(_Event)


class Malformed(Exception):
    """The request is not signed as the scheme says. The text names no value."""


class Absent(Malformed):
    """The request carries no signature at all."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of itself: nothing of it is proved.

    `signatures` are raw digests. `timestamp` is in Unix seconds, None if the scheme has none. `id`
    tells this delivery from others, None if the scheme has none or it stands in the body.
    """

    signatures: tuple[bytes, ...]
    before: bytes = b""
    after: bytes = b""
    timestamp: float | None = None
    id: bytes | None = None


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way of signing. `read` raises Malformed; `body_id` finds the id in a proved body.

    `fields` are the header fields that carry the signature. `has_id` says whether deliveries can be
    told apart at all.
    """

    name: str
    fields: tuple[bytes, ...]
    read: Callable[[Headers], Claim]
    key: Callable[[str], bytes]
    algorithm: Algorithm = "sha256"
    has_timestamp: bool = False
    has_id: bool = True
    body_id: Callable[[bytes], bytes | None] | None = None


def is_proved(claim: Claim, body: bytes, keys: Sequence[bytes], algorithm: Algorithm) -> bool:
    """Whether one of the signatures was made with one of the keys, over exactly these bytes.

    Every pair is compared, in constant time each, so that the time tells nothing of which one held.
    """
    found = False
    for key in keys:
        made = hmac.new(key, claim.before, algorithm)
        made.update(body)
        made.update(claim.after)
        expected = made.digest()
        for signature in claim.signatures:
            found |= hmac.compare_digest(expected, signature)
    return found


def only(headers: Headers, name: bytes) -> bytes:
    """The value of a field that stands there once. Raises Absent, Malformed."""
    values = headers.get_all(name)
    if not values:
        raise Absent(f"there is no {name.decode()} field")
    if len(values) > 1:
        raise Malformed(f"there are several {name.decode()} fields")
    if len(values[0]) > _MAX_FIELD:
        raise Malformed(f"the {name.decode()} field is too long")
    return values[0]


def _time(value: bytes) -> float:
    if not _DIGITS.fullmatch(value):
        raise Malformed("the timestamp is no Unix time")
    number = int(value)
    return number / 1000 if number >= _MILLISECONDS else float(number)


def _identifier(value: bytes) -> bytes:
    if not _ID.fullmatch(value):
        raise Malformed("the id is empty, too long, or not plain ASCII")
    return value


def _digest(text: bytes, encoding: Encoding, algorithm: Algorithm = "sha256") -> bytes | None:
    """The digest that the text stands for, or None if it stands for none."""
    size = _SIZES[algorithm]
    if encoding == "hex":
        return binascii.unhexlify(text) if len(text) == 2 * size and _HEX.fullmatch(text) else None
    try:
        found = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    # Written again, it must be the same: base64 has spare bits that some decoders ignore.
    return found if len(found) == size and base64.b64encode(found) == text else None


def _one(text: bytes, encoding: Encoding, algorithm: Algorithm = "sha256") -> tuple[bytes, ...]:
    digest = _digest(text, encoding, algorithm)
    if digest is None:
        raise Malformed(f"the signature is no {encoding} of {_SIZES[algorithm]} bytes")
    return (digest,)


def _several(texts: Sequence[bytes], encoding: Encoding) -> tuple[bytes, ...]:
    if len(texts) > MAX_SIGNATURES:
        raise Malformed(f"there are more than {MAX_SIGNATURES} signatures")
    found = tuple(digest for text in texts if (digest := _digest(text, encoding)) is not None)
    if not found:
        raise Malformed("there is no signature of a kind that is known here")
    return found


def _after_prefix(value: bytes, prefix: bytes) -> bytes:
    if not value.startswith(prefix):
        raise Malformed(f"the signature does not begin with {prefix.decode()}")
    return value[len(prefix) :]


def _text_key(secret: str) -> bytes:
    return secret.encode()


# Standard Webhooks (github.com/standard-webhooks, specification 1.0): `v1,<base64>` separated by
# spaces; other versions may stand beside it and are skipped.


def _read_standard(headers: Headers) -> Claim:
    value = only(headers, b"webhook-signature")
    delivery = _identifier(only(headers, b"webhook-id"))
    stamp = only(headers, b"webhook-timestamp")
    signed = [part[3:] for part in value.split(b" ") if part.startswith(b"v1,")]
    return Claim(
        _several(signed, "base64"),
        before=b"%b.%b." % (delivery, stamp),
        timestamp=_time(stamp),
        id=delivery,
    )


def standard_key(secret: str) -> bytes:
    """The key that `whsec_<base64>` stands for. Raises ValueError, without the secret."""
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("expected whsec_ and base64, as the sender shows it") from None
    if not key:
        raise ValueError("the secret is empty")
    return key


# GitHub: the body alone; neither a time nor the id is signed.


def _read_github(headers: Headers) -> Claim:
    value = _after_prefix(only(headers, b"x-hub-signature-256"), b"sha256=")
    return Claim(_one(value, "hex"), id=_optional_id(headers, b"x-github-delivery"))


def _optional_id(headers: Headers, name: bytes) -> bytes | None:
    return _identifier(only(headers, name)) if name in headers else None


# Stripe: `t=<seconds>,v1=<hex>[,v1=<hex>...]`; the id is the event's, in the body.


def _read_stripe(headers: Headers) -> Claim:
    stamps: list[bytes] = []
    signed: list[bytes] = []
    for part in only(headers, b"stripe-signature").split(b","):
        name, _, value = part.strip(b" \t").partition(b"=")
        if name == b"t":
            stamps.append(value)
        elif name == b"v1":
            signed.append(value)
    if len(stamps) != 1:
        raise Malformed("the signature has no timestamp of its own")
    return Claim(_several(signed, "hex"), before=stamps[0] + b".", timestamp=_time(stamps[0]))


def stripe_event(body: bytes) -> bytes | None:
    """The id of the event that the body is, or None."""
    try:
        event = _EVENT.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    found = event.id.encode("utf-8", "replace")
    return found if _STRIPE_ID.fullmatch(found) else None


# Slack: `v0:<seconds>:<body>`.


def _read_slack(headers: Headers) -> Claim:
    value = _after_prefix(only(headers, b"x-slack-signature"), b"v0=")
    stamp = only(headers, b"x-slack-request-timestamp")
    return Claim(_one(value, "hex"), before=b"v0:%b:" % stamp, timestamp=_time(stamp))


# Shopify: base64 over the body alone.


def _read_shopify(headers: Headers) -> Claim:
    value = only(headers, b"x-shopify-hmac-sha256")
    return Claim(_one(value, "base64"), id=_optional_id(headers, b"x-shopify-webhook-id"))


# Any other sender that signs with an HMAC, as its configuration describes it.


@dataclass(frozen=True, slots=True)
class HmacOptions:
    """Where a sender's signature stands and what it covers; names are lower case.

    `payload` is the signed text: `{body}` stands in it once, `{timestamp}` and `{id}` where the
    sender puts them, and anything else for itself.
    """

    header: str
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    timestamp_header: str = ""
    id_header: str = ""
    payload: str = "{body}"


def hmac_scheme(options: HmacOptions) -> Scheme:
    """The scheme of these options. Raises ValueError, whose text says what is wrong."""
    before, after = _template(options.payload)
    signs_time = "timestamp" in {name for _, name in (*before, *after)}
    if signs_time != bool(options.timestamp_header):
        raise ValueError("{timestamp} and timestamp_header need each other")
    if "id" in {name for _, name in (*before, *after)} and not options.id_header:
        raise ValueError("{id} needs id_header")
    header, prefix = options.header.encode(), options.prefix.encode()
    time_field, id_field = options.timestamp_header.encode(), options.id_header.encode()

    def read(headers: Headers) -> Claim:
        value = _after_prefix(only(headers, header), prefix)
        stamp = only(headers, time_field) if time_field else b""
        delivery = _identifier(only(headers, id_field)) if id_field else None
        values = {"": b"", "timestamp": stamp, "id": delivery or b""}
        return Claim(
            _one(value, options.encoding, options.algorithm),
            before=b"".join(text + values[name] for text, name in before),
            after=b"".join(text + values[name] for text, name in after),
            timestamp=_time(stamp) if time_field else None,
            id=delivery,
        )

    return Scheme(
        "hmac",
        (header,),
        read,
        _text_key,
        algorithm=options.algorithm,
        has_timestamp=bool(time_field),
        has_id=bool(id_field),
    )


_Parts = list[tuple[bytes, str]]


def _template(payload: str) -> tuple[_Parts, _Parts]:
    """What stands before and after the body: pieces of text, each with the name that follows it."""
    before: _Parts = []
    after: _Parts = []
    parts = before
    position = bodies = 0
    for match in _PLACEHOLDER.finditer(payload):
        text = payload[position : match.start()].encode()
        position = match.end()
        if match[1] == "body":
            bodies += 1
            parts.append((text, ""))
            parts = after
        elif match[1] in ("timestamp", "id"):
            parts.append((text, match[1]))
        else:
            raise ValueError(f"{match[0]} is none of {{body}}, {{timestamp}}, {{id}}")
    if bodies != 1:
        raise ValueError("{body} must stand in it, once")
    parts.append((payload[position:].encode(), ""))
    return before, after


SCHEMES: Final = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "standard", (b"webhook-signature",), _read_standard, standard_key, has_timestamp=True
        ),
        Scheme("github", (b"x-hub-signature-256",), _read_github, _text_key),
        Scheme(
            "stripe",
            (b"stripe-signature",),
            _read_stripe,
            _text_key,
            has_timestamp=True,
            body_id=stripe_event,
        ),
        Scheme(
            "slack",
            (b"x-slack-signature",),
            _read_slack,
            _text_key,
            has_timestamp=True,
            has_id=False,
        ),
        Scheme("shopify", (b"x-shopify-hmac-sha256",), _read_shopify, _text_key),
    )
}
