"""How answers leave: framing, safety, interim answers and trailers, and applications that fail."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.server.settings import ServerSettings
from tests.conformance.case import get, request
from tests.conformance.target import Target, serving
from tests.conformance.wire import Answer, Ended, Wire
from tests.server.app import body, cycle_of, start

CLOSE_LINE = b"Connection: close"


def ask(
    app: Any, sent: bytes, method: str = "GET", settings: ServerSettings | None = None
) -> Answer:
    """One request to `app`, and its answer."""
    with serving(app, settings) as address, Target(address, []).connect() as wire:
        wire.send(sent)
        return wire.read(method)


def raw(app: Any, sent: bytes) -> bytes:
    """Everything that comes back until the connection ends."""
    with serving(app) as address, Target(address, []).connect() as wire:
        wire.send(sent)
        return wire.rest()


async def streaming(scope: Any, receive: Any, send: Any) -> None:
    await start(send, 200, (b"Content-Type", b"text/plain"))
    await body(send, b"one", more=True)
    await body(send, b"", more=True)
    await body(send, b"two", more=True)
    await body(send)


async def whole(scope: Any, receive: Any, send: Any) -> None:
    cycle_of(scope).respond(200, [(b"x-a", b"b")], b"hello")


def test_unknown_length_is_chunked() -> None:
    """RFC 9112 6.1: an answer without a length is chunked for HTTP/1.1, empty pieces left out."""
    answer = ask(streaming, get())
    assert answer.get(b"transfer-encoding") == b"chunked"
    assert answer.body == b"onetwo"
    assert answer.get(b"content-type") == b"text/plain"


def test_http_1_0_is_never_sent_chunks() -> None:
    """RFC 9112 6.1: to HTTP/1.0 the connection's end is the body's end."""
    got = raw(streaming, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    head, _, rest = got.partition(b"\r\n\r\n")
    assert rest == b"onetwo"
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head


def test_whole_answer_has_length_and_date() -> None:
    """RFC 9110 6.6.1, 8.6: respond() adds Date and Content-Length."""
    answer = ask(whole, get())
    assert answer.get(b"content-length") == b"5"
    assert answer.body == b"hello"
    assert (answer.get(b"date") or b"").endswith(b" GMT")


def test_the_application_keeps_its_date() -> None:
    """RFC 9110 6.6.1: a Date that is there already is not added to."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).respond(200, [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")], b"")

    assert ask(app, get()).get(b"date") == b"Thu, 01 Jan 1970 00:00:00 GMT"


def test_head_keeps_the_length_and_loses_the_body() -> None:
    """RFC 9110 9.3.2: HEAD is answered with the fields of GET and no body."""
    got = raw(whole, request(b"HEAD", b"/", CLOSE_LINE))
    head, _, rest = got.partition(b"\r\n\r\n")
    assert b"content-length: 5" in head
    assert rest == b""


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("status", [204, 205, 304])
def test_statuses_without_a_body(status: int, streamed: bool) -> None:
    """RFC 9110 15.3.5, 15.3.6, 15.4.5: no body leaves, whatever the application says."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-length", b"5")]
        if not streamed:
            cycle_of(scope).respond(status, fields, b"hello")
            return
        await start(send, status, *fields)
        await body(send, b"hello")

    head, _, rest = raw(app, get(b"/", CLOSE_LINE)).partition(b"\r\n\r\n")
    assert rest == b""
    length = {204: None, 205: b"content-length: 0", 304: b"content-length: 5"}[status]
    assert (length in head) if length else (b"content-length" not in head)


def test_connection_fields_belong_to_the_server() -> None:
    """RFC 9110 7.6.1: the application's connection fields and framing don't leave."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"Connection", b"keep-alive"), (b"Keep-Alive", b"timeout=5")]
        await start(send, 200, *fields, (b"Transfer-Encoding", b"chunked"))
        await body(send, b"hello")

    answer = ask(app, get())
    assert answer.get(b"connection") is None
    assert answer.get(b"keep-alive") is None
    assert answer.raw.count(b"transfer-encoding") == 1
    assert answer.body == b"hello"


def test_the_application_may_close() -> None:
    """RFC 9112 9.6: Connection: close from the application ends the connection."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).respond(200, [(b"connection", b"close")], b"x")

    assert raw(app, get()).lower().count(b"connection: close") == 1


def test_upgrade_required_names_the_protocol() -> None:
    """RFC 9110 15.5.22: 426 carries Upgrade, and Connection names it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle_of(scope).respond(426, [(b"upgrade", b"websocket")], b"")

    answer = ask(app, get())
    assert answer.get(b"upgrade") == b"websocket"
    assert answer.get(b"connection") == b"upgrade"


@pytest.mark.parametrize(
    "field",
    [
        (b"x-a", b"b\r\nx-evil: 1"),
        (b"x-a", b"b\nx-evil: 1"),
        (b"x-a", b"b\rx-evil: 1"),
        (b"x-a", b"b\0c"),
        (b"x-a\r\nx-evil", b"b"),
        (b"x a", b"b"),
        (b"x-a:", b"b"),
        (b"", b"b"),
        (b"content-length", b"1, 1"),
        (b"content-length", b"-1"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_an_unsafe_field_becomes_a_500(field: tuple[bytes, bytes], streamed: bool) -> None:
    """RFC 9110 5.5: no value can end its line; the client sees a problem instead."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not streamed:
            cycle_of(scope).respond(200, [field], b"x")
            return
        await start(send, 200, field)
        await body(send, b"x")

    answer = ask(app, get())
    assert answer.status == 500
    assert b"evil" not in answer.raw
    assert json.loads(answer.body)["code"] == "internal_error"


def test_an_exception_before_the_answer_is_a_500() -> None:
    """RFC 9110 15.6.1: a problem, a closed connection, and one report."""
    refusals: list[str] = []
    settings = ServerSettings(on_refused=lambda kind, detail, client: refusals.append(kind.code))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("secret")

    answer = ask(app, get(), settings=settings)
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert answer.get(b"connection") == b"close"
    assert refusals == ["internal_error"]


def test_no_answer_at_all_is_a_500() -> None:
    """An application that ends without an answer is a failure of ours, not of the client."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    assert ask(app, get()).status == 500


@pytest.mark.parametrize("chunked", [True, False])
def test_an_exception_in_the_answer_cuts_it(chunked: bool) -> None:
    """RFC 9112 8: an answer that broke off has no last chunk, or less than its length."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 200, *([] if chunked else [(b"content-length", b"10")]))
        await body(send, b"hello", more=True)
        raise ValueError

    with serving(app) as address, Target(address, []).connect() as wire:
        wire.send(get())
        with pytest.raises(Ended) as ended:
            wire.read()
    assert b"0\r\n\r\n" not in ended.value.partial


def _read_to_the_end(wire: Wire) -> None:
    while wire.sock.recv(4096):
        pass


def test_an_exception_in_an_answer_without_framing_resets() -> None:
    """RFC 9112 8: to HTTP/1.0 only a reset shows that the answer is not whole."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 200)
        await body(send, b"hello", more=True)
        raise ValueError

    with serving(app) as address, Target(address, []).connect() as wire:
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            _read_to_the_end(wire)


@pytest.mark.parametrize("pieces", [(b"hel",), (b"hello!",), (b"hello", b"!"), (b"", b"")])
def test_a_body_that_is_not_its_length_is_cut(pieces: tuple[bytes, ...]) -> None:
    """RFC 9110 8.6: neither a byte too few nor one too many passes for a whole answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 200, (b"content-length", b"5"))
        for number, piece in enumerate(pieces):
            await body(send, piece, more=number < len(pieces) - 1)

    _, _, rest = raw(app, get()).partition(b"\r\n\r\n")
    # One too many may come after the client has all it was promised; it ends all the same.
    assert len(rest) <= 5
    assert b"!" not in rest


def test_interim_answers_come_first() -> None:
    """RFC 9110 15.2: 103 leaves at once, and not to HTTP/1.0; 101 is not given away."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycle = cycle_of(scope)
        cycle.informational(103, [(b"link", b"</a.css>; rel=preload")])
        cycle.informational(101, [])
        cycle.respond(200, [], b"x")
        cycle.informational(103, [])

    answer = ask(app, get())
    assert answer.interim == [103]
    assert b" 103 " not in raw(app, b"GET / HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(("te", "expected"), [(b"TE: trailers", b"9"), (b"X-A: b", None)])
def test_trailers_reach_a_client_that_takes_them(te: bytes, expected: bytes | None) -> None:
    """RFC 9110 6.5.1: trailers are sent with TE: trailers only, and the message stays whole."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 200, trailers=True)
        await body(send, b"hello")
        fields = [(b"X-Sum", b"9")]
        await send({"type": "http.response.trailers", "headers": fields, "more_trailers": False})

    answer = ask(app, get(b"/", te))
    assert answer.body == b"hello"
    assert dict(answer.trailers).get(b"x-sum") == expected


def test_messages_out_of_order_are_the_applications_fault() -> None:
    """ASGI: a body before the start, or a second start, raises in the application."""
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for call in (lambda: body(send), lambda: send({"type": "http.nonsense"})):
            with pytest.raises(RuntimeError) as caught:
                await call()
            errors.append(str(caught.value))
        await start(send)
        with pytest.raises(RuntimeError):
            await start(send)
        await body(send)
        with pytest.raises(RuntimeError):
            await body(send)

    assert ask(app, get()).status == 200
    assert len(errors) == 2


def test_scope_says_what_the_request_was() -> None:
    """ASGI HTTP scope: decoded path, exact raw path, query, addresses."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        cycle_of(scope).respond(200, [], b"")

    ask(app, get(b"/a%2Fb/%C3%A4?x=%20"))
    scope = scopes[0]
    assert scope["path"] == "/a/b/ä"
    assert scope["raw_path"] == b"/a%2Fb/%C3%A4"
    assert scope["query_string"] == b"x=%20"
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"
    assert scope["scheme"] == "http"
    assert scope["http_version"] == "1.1"
    assert scope["root_path"] == ""
