"""The cors policy: preflights, fields on answers and refusals, origins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.errors import ORIGIN_DENIED, ConfigError, Refused
from gateway.message import Exchange, Handler, RawHeaders, Response
from gateway.policies.base import BuildContext
from gateway.policies.cors import CorsConfig, CorsPolicy

Make = Callable[..., Exchange]
APP = "https://app.internal"


def build(context: BuildContext, *origins: str, **config: Any) -> CorsPolicy:
    """A policy for these origins."""
    config["origins"] = list(origins or (APP,))
    return CorsPolicy.build(CorsConfig.model_validate(config), context)


def upstream(*fields: tuple[bytes, bytes]) -> Handler:
    """A rest of the chain that answers with these fields."""

    async def forward(exchange: Exchange) -> Response:
        return Response(200, list(fields))

    return forward


async def unreachable(exchange: Exchange) -> Response:
    """A rest of the chain that must not be reached."""
    raise AssertionError


async def preflight(policy: CorsPolicy, make: Make, *fields: tuple[str, str]) -> RawHeaders:
    """The fields of the answer to a preflight."""
    asked = dict([("origin", APP), ("access-control-request-method", "PUT"), *fields])
    exchange = make("OPTIONS", *asked.items())
    response = await policy.handle(exchange, unreachable)
    assert response.status == 204
    assert exchange.reply_headers == []
    return response.headers


async def test_preflight(context: BuildContext, make_exchange: Make) -> None:
    """A preflight is answered here: the method and the fields asked for are granted."""
    fields = await preflight(
        build(context), make_exchange, ("access-control-request-headers", "content-type,x-a")
    )

    assert dict(fields) == {
        b"vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        b"access-control-allow-origin": b"https://app.internal",
        b"access-control-allow-methods": b"PUT",
        b"access-control-allow-headers": b"content-type,x-a",
        b"access-control-max-age": b"600",
    }


async def test_preflight_with_lists(context: BuildContext, make_exchange: Make) -> None:
    """Configured methods and fields are what is granted, whatever was asked for."""
    policy = build(context, methods=["GET", "PUT"], headers=["X-A"], max_age="1h", credentials=True)
    fields = dict(
        await preflight(policy, make_exchange, ("access-control-request-headers", "x-evil"))
    )

    assert fields[b"access-control-allow-methods"] == b"GET, PUT"
    assert fields[b"access-control-allow-headers"] == b"X-A"
    assert fields[b"access-control-allow-credentials"] == b"true"
    assert fields[b"access-control-max-age"] == b"3600"


async def test_preflight_with_garbage(context: BuildContext, make_exchange: Make) -> None:
    """What is no method and no list of fields is not echoed."""
    fields = dict(
        await preflight(
            build(context),
            make_exchange,
            ("access-control-request-method", "P U T"),
            ("access-control-request-headers", "a;b"),
        )
    )

    assert b"access-control-allow-methods" not in fields
    assert b"access-control-allow-headers" not in fields


async def test_preflight_of_a_stranger(context: BuildContext, make_exchange: Make) -> None:
    """A preflight from an origin that is not listed is refused with 403."""
    exchange = make_exchange(
        "OPTIONS", ("origin", "https://evil.example"), ("access-control-request-method", "PUT")
    )
    with pytest.raises(Refused) as caught:
        await build(context).handle(exchange, unreachable)

    assert caught.value.kind is ORIGIN_DENIED
    assert not any(name.startswith(b"access-control") for name, _ in caught.value.headers)


async def test_options_that_is_no_preflight(context: BuildContext, make_exchange: Make) -> None:
    """OPTIONS without Access-Control-Request-Method is a request like others."""
    exchange = make_exchange("OPTIONS", ("origin", APP))
    response = await build(context).handle(exchange, upstream())

    assert response.status == 200
    assert (b"access-control-allow-origin", APP.encode()) in exchange.reply_headers


async def test_actual_request(context: BuildContext, make_exchange: Make) -> None:
    """The answer to a listed origin says so, and that it depends on the origin."""
    exchange = make_exchange("GET", ("origin", APP))
    await build(context, credentials=True, expose=["ETag", "X-B"]).handle(exchange, upstream())

    assert exchange.reply_headers == [
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", APP.encode()),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"ETag, X-B"),
    ]


async def test_refusals_carry_the_fields(context: BuildContext, make_exchange: Make) -> None:
    """A failure further in leaves with the CORS fields, so that the page can read it."""
    exchange = make_exchange("GET", ("origin", APP))
    with pytest.raises(AssertionError):
        await build(context).handle(exchange, unreachable)

    assert (b"access-control-allow-origin", APP.encode()) in exchange.reply_headers


async def test_strangers_pass_without_fields(context: BuildContext, make_exchange: Make) -> None:
    """A request from an origin that is not listed passes; the browser keeps the answer back."""
    exchange = make_exchange("GET", ("origin", "https://evil.example"))
    response = await build(context).handle(exchange, upstream())

    assert response.status == 200
    assert exchange.reply_headers == [(b"vary", b"Origin")]


async def test_without_origin(context: BuildContext, make_exchange: Make) -> None:
    """Answers to others vary by Origin as well, or a cache would hand them to pages."""
    exchange = make_exchange("GET")
    await build(context).handle(exchange, upstream())

    assert exchange.reply_headers == [(b"vary", b"Origin")]


async def test_everyone(context: BuildContext, make_exchange: Make) -> None:
    """`*` is said as it is, and does not vary."""
    exchange = make_exchange("GET", ("origin", "https://any.example"))
    await build(context, "*").handle(exchange, upstream())

    assert exchange.reply_headers == [(b"access-control-allow-origin", b"*")]


@pytest.mark.parametrize("origin", [APP, "https://evil.example", None])
async def test_the_upstreams_fields_are_replaced(
    context: BuildContext, make_exchange: Make, origin: str | None
) -> None:
    """What the upstream says about CORS never reaches the client."""
    forward = upstream(
        (b"access-control-allow-origin", b"*"),
        (b"content-type", b"text/plain"),
        (b"access-control-allow-credentials", b"true"),
    )
    exchange = make_exchange("GET", *([("origin", origin)] if origin else []))
    response = await build(context).handle(exchange, forward)

    assert response.headers == [(b"content-type", b"text/plain")]


@pytest.mark.parametrize(
    ("listed", "origin", "passes"),
    [
        ("https://app.internal", "https://app.internal", True),
        ("https://APP.internal:443", "https://app.internal", True),
        ("http://app.internal:8080", "http://app.internal:8080", True),
        ("https://app.internal", "http://app.internal", False),
        ("https://app.internal", "https://app.internal:8443", False),
        ("https://app.internal", "https://app.internal.evil.example", False),
        ("https://app.internal", "null", False),
        ("https://*.internal", "https://app.internal", True),
        ("https://*.internal", "https://a.b.internal", True),
        ("https://*.internal", "https://internal", False),
        ("https://*.internal", "https://evilinternal", False),
        ("https://*.internal", "https://app.internal.evil.example", False),
        ("https://*.internal", "https://evil.example/.internal", False),
        ("https://*.internal", "https://evil.example#.internal", False),
        ("https://*.internal", "https://.internal", False),
        ("https://*.internal", "http://app.internal", False),
        ("https://*.internal", "https://app.internal:8443", False),
        ("https://*.internal:8443", "https://app.internal:8443", True),
        ("https://*.in.ternal", "https://a.inxternal", False),
        ("http://[::1]:3000", "http://[::1]:3000", True),
        ("http://localhost:*", "http://localhost:5173", True),
        ("http://localhost:*", "http://localhost", True),
        ("http://localhost:*", "http://localhost:5173.evil.example", False),
        ("http://localhost:*", "http://localhost.evil.example:80", False),
        ("http://localhost:*", "https://localhost:5173", False),
        ("https://*.internal:*", "https://a.internal:1", True),
        ("capacitor://localhost", "capacitor://localhost", True),
    ],
)
async def test_origins(
    context: BuildContext, make_exchange: Make, listed: str, origin: str, passes: bool
) -> None:
    """Origins are compared whole; a wildcard is one label or more, in front."""
    exchange = make_exchange("GET", ("origin", origin))
    await build(context, listed).handle(exchange, upstream())

    assert ((b"access-control-allow-origin", origin.encode()) in exchange.reply_headers) is passes


@pytest.mark.parametrize(
    "origin",
    ["app.internal", "https://app.internal/", "https://app.internal/x", "null", "https://*",
     "https://a.*.internal", "*.internal", "https://", "https://a b", "https://a:b@c", ""],
)  # fmt: skip
def test_origins_that_are_none(origin: str) -> None:
    """What no browser would send as Origin is an error."""
    with pytest.raises(ValidationError):
        CorsConfig(origins=[origin])


def test_everyone_with_credentials(context: BuildContext) -> None:
    """Everyone with credentials would open users' sessions to any page: refused."""
    with pytest.raises(ConfigError, match="by name") as caught:
        build(context, "*", credentials=True)
    assert caught.value.path == "origins"


def test_everyone_beside_others(context: BuildContext) -> None:
    """`*` beside other origins is a mistake."""
    with pytest.raises(ConfigError, match="leave the others out"):
        build(context, "*", APP)


def test_no_origins() -> None:
    """A list without origins would switch everything off in silence: refused."""
    with pytest.raises(ValidationError):
        CorsConfig(origins=[])


@pytest.mark.parametrize(
    ("origin", "host", "passes"),
    [
        (APP, "api.internal", True),
        ("https://evil.example", "api.internal", False),
        ("https://api.internal", "API.internal", True),
        ("https://api.internal:8443", "api.internal:8443", True),
        ("https://api.internal:8443", "api.internal", False),
        ("null", "api.internal", False),
        ("", "api.internal", False),
        (None, "api.internal", True),
    ],
)
async def test_websockets(
    context: BuildContext, make_exchange: Make, origin: str | None, host: str, passes: bool
) -> None:
    """CORS does not hold WebSockets back, so a page that is neither listed nor ours is refused."""
    fields = [("host", host), *([] if origin is None else [("origin", origin)])]
    exchange = make_exchange("GET", *fields)
    exchange.subprotocols = []
    if passes:
        assert (await build(context).handle(exchange, upstream())).status == 200
    else:
        with pytest.raises(Refused) as caught:
            await build(context).handle(exchange, unreachable)
        assert caught.value.kind is ORIGIN_DENIED


async def test_private_network(context: BuildContext, make_exchange: Make) -> None:
    """A browser that asks whether a public page may call in here is told so, if that is wanted."""
    asks = ("access-control-request-private-network", "true")
    granted = (b"access-control-allow-private-network", b"true")

    assert granted in await preflight(build(context, private_network=True), make_exchange, asks)
    assert granted not in await preflight(build(context, private_network=True), make_exchange)
    assert granted not in await preflight(build(context), make_exchange, asks)


async def test_report_mode_leaves_strangers_alone(
    context: BuildContext, make_exchange: Make
) -> None:
    """While it only reports, the upstream's word to an origin that is not listed still counts."""
    said = (b"access-control-allow-origin", b"https://evil.example")
    policy = build(context, mode="report")
    stranger = make_exchange("GET", ("origin", "https://evil.example"))
    known = make_exchange("GET", ("origin", APP))

    assert (await policy.handle(stranger, upstream(said))).headers == [said]
    assert (await policy.handle(known, upstream(said))).headers == []


@pytest.mark.parametrize("key", ["methods", "headers", "expose"])
def test_stars_with_credentials(context: BuildContext, key: str) -> None:
    """`*` is no wildcard to a page with credentials, so it is refused instead of ignored."""
    with pytest.raises(ConfigError) as caught:
        build(context, credentials=True, **{key: ["*"]})
    assert caught.value.path == key
