"""Webhook signatures: the senders' own examples, keys that rotate, and whatever else may come."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.message import Headers
from gateway.policies.auth.signatures import (
    SCHEMES,
    Absent,
    Claim,
    HmacOptions,
    Malformed,
    Scheme,
    hmac_scheme,
    is_proved,
    standard_key,
    stripe_event,
)


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers([(name.encode(), value.encode("latin-1")) for name, value in pairs])


def proves(scheme: Scheme, given_headers: Headers, body: bytes, *secrets: str) -> bool:
    keys = [scheme.key(secret) for secret in secrets]
    return is_proved(scheme.read(given_headers), body, keys, scheme.algorithm)


def test_standard_webhooks_example() -> None:
    """The example of the Standard Webhooks specification holds, and its id and time are read."""
    scheme = SCHEMES["standard"]
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    sent = headers(
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    )

    assert proves(scheme, sent, b'{"test": 2432232314}', secret)
    assert proves(scheme, sent, b'{"test": 2432232314}', secret.removeprefix("whsec_"))
    assert not proves(scheme, sent, b'{"test": 2432232315}', secret)
    claim = scheme.read(sent)
    assert (claim.id, claim.timestamp) == (b"msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.0)


def test_github_example() -> None:
    """The example of GitHub's documentation holds."""
    scheme = SCHEMES["github"]
    sent = headers(
        (
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    )

    assert proves(scheme, sent, b"Hello, World!", "It's a Secret to Everybody")
    assert not proves(scheme, sent, b"Hello, World", "It's a Secret to Everybody")
    assert scheme.read(sent).id == b"72d3162e-cc78-11e3-81ab-4c9367dc0958"


def test_slack_example() -> None:
    """The example of Slack's documentation holds."""
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow"
        b"&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
        b"&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands"
        b"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
        b".803a0bc887a14d10d2c447fce8b6703c"
    )
    sent = headers(
        ("x-slack-request-timestamp", "1531420618"),
        (
            "x-slack-signature",
            "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        ),
    )

    assert proves(SCHEMES["slack"], sent, body, "8f742231b10e8888abcd99yyyzzz85a5")


def test_stripe() -> None:
    """Several v1 signatures, of which one is ours; older ones are skipped; the event has the id."""
    body = b'{"object": "event", "id": "evt_1abc", "data": {"id": "x"}}'
    good = hmac.digest(b"whsec_x", b"1700000000." + body, "sha256").hex()
    other = hmac.digest(b"old", b"1700000000." + body, "sha256").hex()
    value = f"t=1700000000, v0={good},v1={other},v1={good}"
    scheme = SCHEMES["stripe"]

    assert proves(scheme, headers(("stripe-signature", value)), body, "whsec_x")
    assert not proves(
        scheme, headers(("stripe-signature", f"t=1700000000,v0={good},v1={other}")), body, "whsec_x"
    )
    assert not proves(
        scheme, headers(("stripe-signature", f"t=1700000001,v1={good}")), body, "whsec_x"
    )
    assert stripe_event(body) == b"evt_1abc"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"id": 5}', b'{"id": ""}', b'{"id": "a b"}', b'{"id": "\\ud800"}',
     b'{"id": "' + b"x" * 129 + b'"}', b"\xff", b"[" * 100_000],
)  # fmt: skip
def test_stripe_events_without_an_id(body: bytes) -> None:
    """A body that names no event gives none, whatever it is."""
    assert stripe_event(body) is None


def test_shopify() -> None:
    """Base64 over the body alone."""
    digest = base64.b64encode(hmac.digest(b"hush", b'{"a":1}', "sha256")).decode()
    sent = headers(("x-shopify-hmac-sha256", digest), ("x-shopify-webhook-id", "b54557e4"))

    assert proves(SCHEMES["shopify"], sent, b'{"a":1}', "hush")
    assert not proves(SCHEMES["shopify"], sent, b'{"a":1} ', "hush")


def test_rotation() -> None:
    """Either of two secrets proves it."""
    digest = hmac.digest(b"new", b"x", "sha256").hex()
    sent = headers(("x-hub-signature-256", f"sha256={digest}"))

    assert proves(SCHEMES["github"], sent, b"x", "old", "new")
    assert proves(SCHEMES["github"], sent, b"x", "new", "old")
    assert not proves(SCHEMES["github"], sent, b"x", "old")
    assert not proves(SCHEMES["github"], sent, b"x")


def test_any_hmac() -> None:
    """Header, algorithm, encoding, prefix, time, id and signed text are what they were set to."""
    scheme = hmac_scheme(
        HmacOptions(
            header="x-signature",
            algorithm="sha512",
            encoding="base64",
            prefix="v1:",
            timestamp_header="x-time",
            id_header="x-id",
            payload="{id}.{timestamp}/{body}#{id}",
        )
    )
    digest = hmac.digest(b"k", b"abc.1700000000000/body#abc", "sha512")
    sent = headers(
        ("x-signature", "v1:" + base64.b64encode(digest).decode()),
        ("x-time", "1700000000000"),
        ("x-id", "abc"),
    )

    assert proves(scheme, sent, b"body", "k")
    assert scheme.read(sent).timestamp == 1_700_000_000.0
    assert (scheme.has_timestamp, scheme.has_id) == (True, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"payload": "{timestamp}.{body}"}, "need each other"),
        ({"timestamp_header": "x-time"}, "need each other"),
        ({"payload": "{id}.{body}"}, "needs id_header"),
        ({"payload": "nothing"}, "once"),
        ({"payload": "{body}{body}"}, "once"),
        ({"payload": "{body}{url}"}, "none of"),
    ],
)
def test_hmac_options_that_can_not_work(options: dict[str, Any], message: str) -> None:
    """What would never verify, or leave the time unsigned, is refused when it is read."""
    with pytest.raises(ValueError, match=message):
        hmac_scheme(HmacOptions(header="x-signature", **options))


@pytest.mark.parametrize("secret", ["whsec_", "whsec_*", "whsec_a", "é"])
def test_standard_secrets_that_are_none(secret: str) -> None:
    """A secret that is no base64 is refused, and not quoted."""
    with pytest.raises(ValueError, match=r"secret|base64") as caught:
        standard_key(secret)
    assert secret not in str(caught.value) or secret == "whsec_"


FIELDS = {
    "standard": ["webhook-signature", "webhook-id", "webhook-timestamp"],
    "github": ["x-hub-signature-256", "x-github-delivery"],
    "stripe": ["stripe-signature"],
    "slack": ["x-slack-signature", "x-slack-request-timestamp"],
    "shopify": ["x-shopify-hmac-sha256", "x-shopify-webhook-id"],
}


@pytest.mark.parametrize("name", FIELDS)
def test_nothing_sent(name: str) -> None:
    """No signature at all is told apart from a wrong one."""
    with pytest.raises(Absent):
        SCHEMES[name].read(headers())


HEX = "a" * 64
BASE64 = base64.b64encode(bytes(32)).decode()
GOOD = {
    "standard": [f"v1,{BASE64}", "msg_1", "1700000000"],
    "github": [f"sha256={HEX}", "id"],
    "stripe": [f"t=1700000000,v1={HEX}"],
    "slack": [f"v0={HEX}", "1700000000"],
    "shopify": [BASE64, "id"],
}


def malformed() -> list[Any]:
    bad = ["",
           "v1", "v1,", "v1,a,b", "abc", "v1,=", "v1,é", ",", " ", "sha256=", "sha1=" + HEX,
           "sha256=" + HEX + "a", "sha256=" + HEX[:-2], "v0=", HEX, "v0=" + "g" * 64,
           "t=,v1=" + HEX,
           "t=1", "v1=" + HEX, f"t=1,t=2,v1={HEX}", f"t=-1,v1={HEX}", f"t=1e9,v1={HEX}",
           BASE64[:-2] + "B=", BASE64.rstrip("="), "\xff\xfe", "x" * 5000,
           " ".join(["v1," + BASE64] * 17), ",".join(["t=1"] + ["v1=" + HEX] * 17)]  # fmt: skip
    return [(name, value) for name in FIELDS for value in bad]


@pytest.mark.parametrize(("name", "value"), malformed())
def test_malformed_signatures(name: str, value: str) -> None:
    """What is no signature of the scheme is Malformed, and no other exception."""
    fields = dict(zip(FIELDS[name], GOOD[name], strict=True))
    assert isinstance(SCHEMES[name].read(headers(*fields.items())), Claim)
    fields[FIELDS[name][0]] = value
    if name == "shopify" and value == BASE64:
        return
    with pytest.raises(Malformed):
        SCHEMES[name].read(headers(*fields.items()))


@pytest.mark.parametrize("name", FIELDS)
def test_repeated_fields(name: str) -> None:
    """A field that stands there twice could be read in two ways: refused, the same value or not."""
    fields = list(zip(FIELDS[name], GOOD[name], strict=True))
    for pair in fields:
        with pytest.raises(Malformed, match="several"):
            SCHEMES[name].read(headers(*fields, pair))


@pytest.mark.parametrize(
    "stamp", ["", "x", "-1", "+1", "1.5", "1_0", "\uff19", "1" * 15, " 1", "0x1"]
)
def test_times_that_are_none(stamp: str) -> None:
    """A time is digits."""
    fields = [(b"webhook-signature", GOOD["standard"][0].encode()), (b"webhook-id", b"a")]
    with pytest.raises(Malformed, match="Unix time"):
        SCHEMES["standard"].read(Headers([*fields, (b"webhook-timestamp", stamp.encode())]))


@given(
    st.sampled_from(sorted(FIELDS)),
    st.lists(st.binary(max_size=200), min_size=3, max_size=3),
    st.binary(max_size=50),
)
def test_garbage(name: str, values: list[bytes], body: bytes) -> None:
    """Whatever bytes stand in the fields: Malformed, or a claim that no secret bears out."""
    pairs = [(each.encode(), value) for each, value in zip(FIELDS[name], values, strict=False)]
    try:
        claim = SCHEMES[name].read(Headers(pairs))
    except Malformed:
        return
    assert not is_proved(claim, body, [b"secret"], "sha256")


@given(
    st.binary(max_size=100), st.integers(0, 2**33), st.from_regex(r"[!-~]{1,40}", fullmatch=True)
)
def test_what_was_signed_is_proved(body: bytes, stamp: int, delivery: str) -> None:
    """Any body, time and id; one changed byte of the body is not."""
    key = hashlib.sha256(b"k").digest()
    content = f"{delivery}.{stamp}.".encode() + body
    digest = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    sent = headers(
        ("webhook-id", delivery),
        ("webhook-timestamp", str(stamp)),
        ("webhook-signature", f"v1a,zzz v1,{digest}"),
    )
    claim = SCHEMES["standard"].read(sent)

    assert is_proved(claim, body, [key], "sha256")
    assert not is_proved(claim, body + b"x", [key], "sha256")
