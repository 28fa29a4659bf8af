"""What more than two messages make of the cache: validation, HEAD, invalidation, errors, tags."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import CONNECT_FAILED, NOT_PERMITTED, Refused, Rejection, UpstreamError
from gateway.message import Principal
from gateway.policies.cache.entry import Selector
from tests.policies.cache.desk import Desk, Reply, reply

FRESH = reply("Cache-Control: max-age=60", 'ETag: "a"', body=b"one")
OTHER = reply("Cache-Control: max-age=60", 'ETag: "b"', body=b"two")
DOWN = Reply(fails=UpstreamError(CONNECT_FAILED, "no"))


# Validation, RFC 9111 sections 3.2 and 4.3.


@pytest.mark.parametrize(
    ("name", "old", "new", "kept"),
    [
        ("x-test", "1", "2", "2"),
        ("content-type", "a/b", "c/d", "c/d"),
        ("content-security-policy", "x", "y", "y"),
        ("content-location", "/x", "/y", "/y"),
        ("link", "<a>", "<b>", "<b>"),
        ("content-encoding", "gzip", "br", "gzip"),
        ("content-length", "", "77", "3"),
        ("content-range", "", "bytes 0-1/9", None),
        ("set-cookie2", "", "a=b", None),
        ("keep-alive", "", "timeout=5", None),
        ("proxy-authenticate", "", "Basic", None),
    ],
)
async def test_304_updates(name: str, old: str, new: str, kept: str | None) -> None:
    """A 304 replaces stored fields, but not those that describe the stored bytes (3.2)."""
    desk = Desk()
    first = [f"{name}: {old}"] if old else []
    await desk.ask(reply=reply("Cache-Control: max-age=1", 'ETag: "a"', *first))
    desk.clock.advance(2)
    confirmed = reply("Cache-Control: max-age=60", 'ETag: "a"', f"{name}: {new}", status=304)
    validated = await desk.ask(reply=confirmed)
    desk.clock.advance(5)
    again = await desk.ask()

    assert (validated.how, again.how) == ("validated", "stored")
    assert (validated.status, validated.body) == (200, b"one")
    assert validated.cache_status == "fwd=stale; fwd-status=304"
    assert validated.get(name) == again.get(name) == kept
    assert again.get("age") == "5"


async def test_304_without_freshness_keeps_the_old_words() -> None:
    """A 304 that says nothing new starts the stored freshness anew (4.3.4)."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=10", 'ETag: "a"', "Date: {now+0}"))
    desk.clock.advance(20)
    await desk.ask(reply=reply(status=304))
    desk.clock.advance(9)
    assert (await desk.ask()).how == "stored"


async def test_304_sets_a_cookie() -> None:
    """A cookie of a 304 goes to the client it was meant for, and to nobody else."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=1", 'ETag: "a"'))
    desk.clock.advance(2)
    confirmed = reply("Cache-Control: max-age=60", "Set-Cookie: a=b", status=304)
    assert (await desk.ask(reply=confirmed)).get("set-cookie") == "a=b"
    assert (await desk.ask()).get("set-cookie") is None


async def test_304_that_forbids_storing() -> None:
    """A 304 with no-store is the last that is heard of the stored answer."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=1", 'ETag: "a"'))
    desk.clock.advance(2)
    last = await desk.ask(reply=reply("Cache-Control: no-store", 'ETag: "a"', status=304))
    assert (last.status, last.body) == (200, b"one")
    assert (await desk.ask(reply=OTHER)).how == "fetched"


@pytest.mark.parametrize(
    ("stored", "confirmed", "accepted"),
    [
        (('ETag: "a"',), ('ETag: "a"',), True),
        (('ETag: W/"a"',), ('ETag: "a"',), True),
        (('ETag: "a"',), ('ETag: "b"',), False),
        (('ETag: "a"',), (), True),
        (("Last-Modified: Mon, 06 Nov 2023 00:00:00 GMT",), (), True),
        (("Last-Modified: Mon, 06 Nov 2023 00:00:00 GMT",),
         ("Last-Modified: Mon, 06 Nov 2023 00:00:01 GMT",), False),
        (("Last-Modified: Mon, 06 Nov 2023 00:00:00 GMT",), ('ETag: "a"',), False),
    ],
)  # fmt: skip
async def test_304_of_something_else(
    stored: tuple[str, ...], confirmed: tuple[str, ...], accepted: bool
) -> None:
    """A 304 whose validators are not those of what is stored confirms nothing (4.3.4)."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=1", *stored))
    desk.clock.advance(2)
    replies = iter([reply(*confirmed, status=304), reply("Cache-Control: max-age=60", body=b"two")])
    asked = []

    async def origin(exchange):  # type: ignore[no-untyped-def]
        asked.append(exchange.request.headers)
        return desk.respond(next(replies))

    got = await desk.policy.handle(desk.exchange("GET", "/a"), origin)

    assert got.status == 200
    assert got.body == (b"one" if accepted else b"two")
    assert len(asked) == (1 if accepted else 2)
    assert b"if-none-match" not in asked[-1].index or accepted


async def test_validation_replaces_the_clients_conditions() -> None:
    """The cache asks with its own validators, and answers the client's condition itself."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=1", 'ETag: "a"'))
    desk.clock.advance(2)
    condition = 'If-None-Match: "old", "b"'
    got = await desk.ask("GET", "/a", condition, reply=OTHER)
    assert got.asked is not None
    assert got.asked.get_all(b"if-none-match") == [b'"a"']
    assert (got.status, got.body) == (304, b"")
    assert got.get("etag") == '"b"'
    assert got.get("content-length") is None


async def test_a_miss_passes_conditions_on() -> None:
    """Without a stored answer the origin evaluates the condition, and its 304 is not stored."""
    desk = Desk()
    got = await desk.ask("GET", "/a", 'If-None-Match: "x"', reply=reply('ETag: "x"', status=304))
    assert got.status == 304
    assert (await desk.ask(reply=FRESH)).how == "fetched"


LM = "Mon, 06 Nov 2023 00:00:00 GMT"


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('If-None-Match: "a"', 304),
        ('If-None-Match: W/"a"', 304),
        ('If-None-Match: "x", "a"', 304),
        ('If-None-Match: "x,y", "a"', 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "b"', 200),
        ("If-None-Match: a", 200),
        (f"If-Modified-Since: {LM}", 304),
        ("If-Modified-Since: Monday, 06-Nov-23 00:00:00 GMT", 304),
        ("If-Modified-Since: Tue, 07 Nov 2023 00:00:00 GMT", 304),
        ("If-Modified-Since: Sun, 05 Nov 2023 00:00:00 GMT", 200),
        ("If-Modified-Since: yesterday", 200),
    ],
)
async def test_conditions_on_what_is_stored(condition: str, status: int) -> None:
    """Conditions are answered from the cache, tags compared weakly (4.3.2)."""
    desk = Desk()
    said = reply("Cache-Control: max-age=60", 'ETag: "a"', f"Last-Modified: {LM}", "X-A: b")
    await desk.ask(reply=said)
    got = await desk.ask("GET", "/a", condition)
    assert (got.how, got.status) == ("stored", status)
    assert got.get("cache-status") == "lockgate; hit; ttl=60"
    assert got.get("x-a") == "b"
    assert (got.get("content-length") is None) is (status == 304)


async def test_none_match_goes_before_modified_since() -> None:
    """If-Modified-Since is ignored beside If-None-Match (RFC 9110 section 13.1.3)."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=60", 'ETag: "a"', f"Last-Modified: {LM}"))
    got = await desk.ask("GET", "/a", 'If-None-Match: "b"', f"If-Modified-Since: {LM}")
    assert got.status == 200


async def test_modified_since_without_last_modified() -> None:
    """Date stands in for a Last-Modified that is not there (4.3.2)."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=60", "Date: {now+0}"))
    got = await desk.ask("GET", "/a", "If-Modified-Since: Fri, 01 Jan 2038 00:00:00 GMT")
    assert got.status == 304


async def test_conditions_on_a_stored_404() -> None:
    """Conditions are for a 200 (RFC 9110 section 13.2.1)."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=60", 'ETag: "a"', status=404))
    assert (await desk.ask("GET", "/a", 'If-None-Match: "a"')).status == 404


# HEAD, section 4.3.5.


async def test_head_from_a_stored_get() -> None:
    """HEAD gets the fields of what GET stored, and no body."""
    desk = Desk()
    await desk.ask(reply=FRESH)
    got = await desk.ask("HEAD")
    assert (got.how, got.body, got.get("content-length")) == ("stored", b"", "3")


async def test_head_stores_nothing() -> None:
    """An answer to HEAD has no body to give to GET."""
    desk = Desk()
    await desk.ask("HEAD", reply=FRESH)
    assert (await desk.ask(reply=FRESH)).how == "fetched"


async def test_head_freshens() -> None:
    """An answer to HEAD with the same validators makes what GET stored fresh again."""
    desk = Desk()
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    await desk.ask("HEAD", reply=reply("Cache-Control: max-age=60", 'ETag: "a"', "X-A: new"))
    got = await desk.ask()
    assert (got.how, got.get("x-a"), got.body) == ("stored", "new", b"one")


async def test_head_shows_a_change() -> None:
    """An answer to HEAD with another validator or length makes what is stored go."""
    desk = Desk(stale_if_error="1h")
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    await desk.ask("HEAD", reply=OTHER)
    with pytest.raises(UpstreamError):
        await desk.ask(reply=DOWN)


async def test_head_that_is_not_a_method_of_the_route() -> None:
    """`methods: [GET]` leaves HEAD to the upstream."""
    desk = Desk(methods=["GET"])
    await desk.ask(reply=FRESH)
    got = await desk.ask("HEAD", reply=FRESH)
    assert got.cache_status == "fwd=method"


# Invalidation, section 4.4.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FROBNICATE"])
@pytest.mark.parametrize(
    ("status", "gone"), [(200, True), (204, True), (302, True), (404, False), (500, False)]
)
async def test_unsafe_methods_invalidate(method: str, status: int, gone: bool) -> None:
    """What may have changed something makes the stored answer go, unless it failed."""
    desk = Desk()
    await desk.ask(reply=FRESH)
    got = await desk.ask(method, reply=reply(status=status))
    assert got.cache_status == "fwd=method"
    assert (await desk.ask(reply=OTHER)).how == ("fetched" if gone else "stored")


@pytest.mark.parametrize("method", ["OPTIONS", "PROPFIND", "SEARCH", "QUERY"])
async def test_safe_methods_do_not(method: str) -> None:
    """What changes nothing leaves the stored answer alone."""
    desk = Desk()
    await desk.ask(reply=FRESH)
    await desk.ask(method, reply=reply())
    assert (await desk.ask()).how == "stored"


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    ("value", "gone"),
    [
        ("/a", True),
        ("a", True),
        ("http://api.test/a", True),
        ("http://API.test:80/x/../a", True),
        ("//api.test/a", True),
        ("https://api.test/a", False),
        ("http://other.test/a", False),
        ("http://api.test:81/a", False),
        ("/b", False),
        ("/a?x=1", False),
        ("http://[", False),
        ("/%zz", False),
        ("", False),
    ],
)
async def test_location_invalidates(name: str, value: str, gone: bool) -> None:
    """So go the answers of Location and Content-Location, on the same host only."""
    desk = Desk()
    await desk.ask(reply=FRESH)
    await desk.ask("POST", "/orders", reply=reply(f"{name}: {value}", status=201))
    assert (await desk.ask(reply=OTHER)).how == ("fetched" if gone else "stored")


async def test_every_variant_goes() -> None:
    """All variants and partitions of a URI are invalidated together."""
    desk = Desk(vary_on=["header:X-Tenant"])
    said = reply("Cache-Control: max-age=60", "Vary: Foo")
    for tenant in "ab":
        for foo in "12":
            await desk.ask("GET", "/a", f"X-Tenant: {tenant}", f"Foo: {foo}", reply=said)
    assert len(desk.memory) == 4
    await desk.ask("PUT", reply=reply())
    assert len(desk.memory) == 0


async def test_an_unsafe_request_that_breaks_off() -> None:
    """Nobody knows whether it was carried out, so what is stored goes."""
    desk = Desk()
    await desk.ask(reply=FRESH)
    with pytest.raises(UpstreamError):
        await desk.ask("PUT", reply=DOWN)
    assert (await desk.ask(reply=OTHER)).how == "fetched"


async def test_an_unsafe_request_that_was_never_sent() -> None:
    """If no byte of it left, nothing was changed."""
    desk = Desk()
    await desk.ask(reply=FRESH)
    with pytest.raises(UpstreamError):
        await desk.ask("PUT", reply=Reply(fails=UpstreamError(CONNECT_FAILED, sent=False)))
    assert (await desk.ask()).how == "stored"


@pytest.mark.parametrize("how", ["invalidate", "route", "prefix", "tag", "all"])
async def test_an_answer_under_way_is_not_stored_after_a_purge(how: str) -> None:
    """What was fetched before a purge does not come back after it."""
    desk = Desk(tags=["t"])
    came, go = asyncio.Event(), asyncio.Event()

    async def origin(exchange):  # type: ignore[no-untyped-def]
        came.set()
        await go.wait()
        return desk.respond(FRESH)

    waiting = asyncio.create_task(desk.policy.handle(desk.exchange("GET", "/a"), origin))
    await came.wait()
    if how == "invalidate":
        await desk.ask("PUT", reply=reply())
    else:
        given = {"route": "test", "prefix": "/", "tag": "t", "all": True}[how]
        desk.memory.purge(Selector(**{how: given}))  # type: ignore[arg-type]
    go.set()
    assert (await waiting).body == b"one"
    assert len(desk.memory) == 0


async def test_a_newer_answer_that_is_not_stored() -> None:
    """What the origin says now makes what it said before go, even if it may not be kept."""
    desk = Desk(stale_if_error="1h")
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    await desk.ask(reply=reply("Cache-Control: no-store"))
    with pytest.raises(UpstreamError):
        await desk.ask(reply=DOWN)


# Stale answers, RFC 5861.


@pytest.mark.parametrize("said", [DOWN, *(Reply(status=code) for code in (500, 502, 503, 504))])
async def test_stale_if_error(said: Reply) -> None:
    """A failure, or an answer that says one, is replaced by the stale answer, for a while."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=60, stale-if-error=30"))
    desk.clock.advance(61)
    got = await desk.ask(reply=said)
    assert (got.status, got.body, got.get("age")) == (200, b"one", "61")
    status = f"; fwd-status={said.status}" if said.fails is None else ""
    assert got.cache_status == f"fwd=stale{status}"
    desk.clock.advance(30)
    if said.fails is None:
        assert (await desk.ask(reply=said)).status == said.status
    else:
        with pytest.raises(UpstreamError):
            await desk.ask(reply=said)


@pytest.mark.parametrize(
    "said", [Reply(status=501), Reply(status=404), Reply(fails=Refused(Rejection(NOT_PERMITTED)))]
)
async def test_no_stale_answer_for_other_words(said: Reply) -> None:
    """What is no failure of the server's reaches the client."""
    desk = Desk(stale_if_error="1h")
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    if said.fails is None:
        assert (await desk.ask(reply=said)).status == said.status
    else:
        with pytest.raises(Refused):
            await desk.ask(reply=said)


@pytest.mark.parametrize("word", ["must-revalidate", "proxy-revalidate", "s-maxage=60"])
async def test_no_stale_answer_where_it_is_forbidden(word: str) -> None:
    """Directives that forbid stale answers hold in case of errors too (4.2.4)."""
    desk = Desk(stale_if_error="1h")
    await desk.ask(reply=reply(f"Cache-Control: max-age=60, {word}, stale-if-error=99"))
    desk.clock.advance(61)
    with pytest.raises(UpstreamError):
        await desk.ask(reply=DOWN)


async def test_a_failing_upstream_is_left_alone_for_a_moment() -> None:
    """For a second after a failure the stale answer is given without asking again."""
    desk = Desk(stale_if_error="1h")
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    await desk.ask(reply=DOWN)
    assert (await desk.ask()).cache_status == "hit; ttl=-1"
    desk.clock.advance(1.1)
    assert (await desk.ask(reply=OTHER)).how == "validated"


async def test_stale_while_revalidate_fetches_once() -> None:
    """The stale answer is given, one fetch runs in the background, and its answer is next."""
    desk = Desk(stale_while_revalidate="30s")
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    asked = []
    go = asyncio.Event()

    async def origin(exchange):  # type: ignore[no-untyped-def]
        asked.append(exchange.request.headers)
        await go.wait()
        return desk.respond(OTHER)

    for _ in range(3):
        client = desk.exchange("GET", "/a", "If-None-Match: x", "Cache-Control: max-age=99", "A: b")
        got = await desk.policy.handle(client, origin)
        assert got.body == b"one"
        assert (b"cache-status", b"lockgate; hit; ttl=-1") in got.headers
        assert client.cache == "stale"
        await asyncio.sleep(0)
    go.set()
    for task in list(desk.policy._tasks):
        await task
    assert len(asked) == 1
    assert asked[0].get_all(b"if-none-match") == [b'"a"']
    assert asked[0].get(b"a") == b"b"
    assert b"cache-control" not in asked[0]
    assert (await desk.ask()).body == b"two"


async def test_refreshing_ends_with_the_policy() -> None:
    """Closing the policy ends what is fetched in the background, and nothing is left of it."""
    desk = Desk(stale_while_revalidate="30s")
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    ended = asyncio.Event()

    async def origin(exchange):  # type: ignore[no-untyped-def]
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await desk.policy.handle(desk.exchange("GET", "/a"), origin)
    await asyncio.sleep(0)
    await desk.policy.aclose()
    assert ended.is_set()
    assert desk.policy._state.refreshing == 0
    assert len(desk.policy._flights) == 0
    assert desk.memory._fetching == {}


async def test_a_failed_refresh_leaves_the_stale_answer() -> None:
    """If the background fetch fails, the stale answer goes on, and the next try waits a second."""
    desk = Desk(stale_while_revalidate="30s")
    await desk.ask(reply=FRESH)
    desk.clock.advance(61)
    calls = 0

    async def origin(exchange):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        return desk.respond(Reply(status=503) if calls == 1 else DOWN)

    for expected in (1, 1, 2, 2):
        got = await desk.policy.handle(desk.exchange("GET", "/a"), origin)
        assert got.body == b"one"
        for task in list(desk.policy._tasks):
            await task
        assert calls == expected
        desk.clock.advance(0.6)


# What is said about it.


async def test_cache_status() -> None:
    """Each way through the cache has its words (RFC 9211)."""
    desk = Desk()
    said = reply("Cache-Control: max-age=60", "Vary: Foo")
    assert (await desk.ask(reply=said)).cache_status == "fwd=uri-miss; stored"
    assert (await desk.ask("GET", "/a", "Foo: 1", reply=said)).cache_status == (
        "fwd=vary-miss; stored"
    )
    assert (await desk.ask("GET", "/b", reply=reply())).cache_status == "fwd=uri-miss"
    no_cache = "Cache-Control: no-cache"
    assert (await desk.ask("GET", "/a", no_cache, reply=said)).cache_status == (
        "fwd=request; stored"
    )
    assert (await desk.ask("GET", "/a", "Range: x", reply=reply())).cache_status == "fwd=bypass"
    desk.clock.advance(59.5)
    assert (await desk.ask()).cache_status == "hit; ttl=1"
    desk.clock.advance(1)
    assert (await desk.ask(reply=said)).cache_status == "fwd=stale; stored"


async def test_cache_status_of_caches_behind_is_kept() -> None:
    """What caches further in said stands before what this one says."""
    desk = Desk()
    said = reply("Cache-Control: max-age=60", "Cache-Status: origin; hit")
    for _ in range(2):
        got = await desk.ask(reply=said)
        assert [value.partition(b";")[0] for value in got.headers.get_all(b"cache-status")] == [
            b"origin", b"lockgate",
        ]  # fmt: skip


async def test_only_if_cached() -> None:
    """504 if nothing usable is stored and only that was asked for (5.2.1.7)."""
    desk = Desk()
    got = await desk.ask("GET", "/a", "Cache-Control: only-if-cached")
    assert (got.status, got.how) == (504, "stored")
    assert b'"code": "not_cached"' in got.body
    await desk.ask(reply=FRESH)
    assert (await desk.ask("GET", "/a", "Cache-Control: only-if-cached")).status == 200
    desk.clock.advance(61)
    assert (await desk.ask("GET", "/a", "Cache-Control: only-if-cached")).status == 504


async def test_date_is_kept_or_added() -> None:
    """Date stays what the origin said; if it said nothing, it is when the answer came."""
    desk = Desk()
    await desk.ask(reply=reply("Cache-Control: max-age=60", "Date: Tue, 14 Nov 2023 22:13:19 GMT"))
    desk.clock.advance(9)
    assert (await desk.ask()).get("date") == "Tue, 14 Nov 2023 22:13:19 GMT"
    await desk.ask("GET", "/b", reply=reply("Cache-Control: max-age=60"))
    desk.clock.advance(9)
    assert (await desk.ask("GET", "/b")).get("date") == "Tue, 14 Nov 2023 22:13:29 GMT"


async def test_hidden_fields_are_not_stored() -> None:
    """Fields that no-cache or private name are not given to others (5.2.2.4, 5.2.2.7)."""
    desk = Desk()
    said = reply('Cache-Control: max-age=60, no-cache="X-A, x-b", private=X-C',
                 "X-A: 1", "X-B: 2", "X-C: 3", "X-D: 4")  # fmt: skip
    first = await desk.ask(reply=said)
    assert first.get("x-a") == "1"
    got = await desk.ask()
    assert [got.get(f"x-{letter}") for letter in "abcd"] == [None, None, None, "4"]


async def test_tags() -> None:
    """Tags come from the configuration and from the answer, do not leave, and purge."""
    desk = Desk(tags=["all-orders"])
    said = reply("Cache-Control: max-age=60", "Cache-Tag: a, b", "Surrogate-Key: c d")
    first = await desk.ask(reply=said)
    assert first.get("cache-tag") is first.get("surrogate-key") is None
    assert (await desk.ask()).get("cache-tag") is None
    for tag in ("a", "b", "c", "d", "all-orders"):
        assert desk.memory.purge(Selector(tag=tag)) == 1
        assert desk.memory.purge(Selector(tag=tag)) == 0
        await desk.ask(reply=said)
    assert desk.memory.purge(Selector(tag="e")) == 0


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        (Selector(prefix="/v1/"), {"/v1/x"}),
        (Selector(prefix="/v1"), {"/v1/x", "/v10"}),
        (Selector(prefix="api.test/v1/"), {"/v1/x"}),
        (Selector(prefix="other.test/"), set()),
        (Selector(route="test"), {"/v1/x", "/v10", "/b"}),
        (Selector(route="tes"), set()),
        (Selector(all=True), {"/v1/x", "/v10", "/b"}),
    ],
)
async def test_purge(selector: Selector, taken: set[str]) -> None:
    """A purge takes what it says and nothing else."""
    desk = Desk()
    paths = ("/v1/x", "/v10", "/b")
    for path in paths:
        await desk.ask("GET", path, reply=FRESH)
    assert desk.memory.purge(selector) == len(taken)
    for path in paths:
        got = await desk.ask("GET", path, reply=FRESH)
        assert got.how == ("fetched" if path in taken else "stored")


# Who may share an answer, and under which key.


async def test_partition_by_consumer() -> None:
    """With `vary_on: [consumer]` each caller has answers of its own, and they need no `public`."""
    desk = Desk(vary_on=["consumer"])
    who = [
        Principal("app", {"sub": "u1"}), Principal("app", {"sub": "u2"}),
        Principal("app", {"sub": "u1", "iss": "b"}), Principal("app"), None,
    ]  # fmt: skip
    for position, principal in enumerate(who):
        body = b"%d" % position
        said = reply("Cache-Control: max-age=60", body=body)
        assert (await desk.ask(reply=said, principal=principal)).how == "fetched"
    for position, principal in enumerate(who):
        assert (await desk.ask(principal=principal)).body == b"%d" % position
    secret = await desk.ask("GET", "/p", reply=reply("Cache-Control: private, max-age=60"),
                            principal=who[0])  # fmt: skip
    assert secret.cache_status == "fwd=uri-miss"


async def test_a_known_caller_has_credentials() -> None:
    """An answer for a caller that was identified is stored only if it says that it may be."""
    desk = Desk()
    await desk.ask(reply=FRESH, principal=Principal("a"))
    assert len(desk.memory) == 0
    await desk.ask(reply=reply("Cache-Control: public, max-age=60"), principal=Principal("a"))
    assert (await desk.ask(principal=Principal("b"))).how == "stored"


async def test_a_credentialed_request_does_not_drop_what_others_share() -> None:
    """What may not be given to a caller with credentials stays there for those without."""
    desk = Desk()
    await desk.ask(reply=FRESH)
    got = await desk.ask("GET", "/a", "Cookie: a=b", reply=OTHER)
    assert got.cache_status == "fwd=bypass"
    assert (await desk.ask()).body == b"one"


@pytest.mark.parametrize(
    "fields",
    [
        ("X-Forwarded-Host: evil",), ("X-Host: evil",), ("X-Original-URL: /admin",),
        ("X-HTTP-Method-Override: DELETE",), ("X-Rewrite-URL: /x",), ("X-Forwarded-Prefix: /x",),
        ("X-Forwarded-Port: 1",), ("X-Forwarded-Scheme: nope",), ("Host: evil",),
    ],
)  # fmt: skip
async def test_poison(fields: tuple[str, ...]) -> None:
    """An answer made under the influence of such a field reaches only who sends it too."""
    desk = Desk()
    evil = reply("Cache-Control: public, max-age=60", body=b"evil")
    await desk.ask("GET", "/a", *fields, reply=evil)
    assert (await desk.ask(reply=FRESH)).body == b"one"
    assert (await desk.ask()).body == b"one"
    assert (await desk.ask("GET", "/a", *fields)).body == b"evil"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a?x=1", "/a?x=2"), ("/a?x=1&y=2", "/a?y=2&x=1"), ("/a", "/a?x"), ("/a", "/A"),
        ("/a?x=%41", "/a?x=A"), ("/a?x=1", "/a?x=1&utm=2"), ("/a?x", "/a?x="),
    ],
)  # fmt: skip
async def test_targets_that_differ(one: str, other: str) -> None:
    """The query counts as it was sent: what an upstream may tell apart, the key does."""
    desk = Desk()
    await desk.ask("GET", one, reply=FRESH)
    assert (await desk.ask("GET", other, reply=OTHER)).how == "fetched"


async def test_host_port_and_scheme_are_in_the_key() -> None:
    """Answers may repeat host, port and scheme."""
    desk = Desk()
    exchange = desk.exchange("GET", "/a")
    exchange.request.headers.set(b"host", b"api.test:1337")

    async def origin(exchange):  # type: ignore[no-untyped-def]
        return desk.respond(FRESH)

    await desk.policy.handle(exchange, origin)
    assert (await desk.ask(reply=OTHER)).how == "fetched"
    secure = desk.exchange("GET", "/a")
    secure.request.scheme = "https"
    assert (b"cache-status", b"lockgate; fwd=uri-miss; stored") in (
        await desk.policy.handle(secure, origin)
    ).headers


async def test_a_get_with_a_body_is_left_alone() -> None:
    """A body that the key does not hold may have made the answer."""
    desk = Desk()
    exchange = desk.exchange("GET", "/a")
    exchange.request.body = b"evil"

    async def origin(exchange):  # type: ignore[no-untyped-def]
        return desk.respond(FRESH)

    got = await desk.policy.handle(exchange, origin)
    assert (b"cache-status", b"lockgate; fwd=bypass") in got.headers
    assert (await desk.ask(reply=OTHER)).how == "fetched"


async def test_reply_headers_are_not_stored() -> None:
    """What policies further out say on one answer is said on that one alone."""
    desk = Desk()
    exchange = desk.exchange("GET", "/a")
    exchange.reply_headers.append((b"x-correlation-id", b"mine"))

    async def origin(exchange):  # type: ignore[no-untyped-def]
        return desk.respond(FRESH)

    response = await desk.policy.handle(exchange, origin)
    response.headers.append((b"x-late", b"mine"))
    got = await desk.ask()
    assert got.get("x-correlation-id") is got.get("x-late") is None
    given = await desk.policy.handle(desk.exchange("GET", "/a"), origin)
    given.headers.append((b"x-late", b"mine"))
    assert (await desk.ask()).get("x-late") is None


async def test_counts() -> None:
    """Each request is counted once, by how it was answered."""
    desk = Desk(stale_if_error="1h")
    await desk.ask(reply=FRESH)
    await desk.ask()
    await desk.ask()
    await desk.ask("POST", "/b", reply=reply())
    desk.clock.advance(61)
    await desk.ask(reply=DOWN)
    desk.clock.advance(2)
    await desk.ask(reply=reply('ETag: "a"', status=304))
    snapshot = desk.context.metrics.snapshot()
    family = next(
        each for each in snapshot.families
        if each.declaration.name == "gateway_cache_requests_total"
    )  # fmt: skip
    assert {sample.labels[1]: sample.value for sample in family.samples} == {
        "miss": 1, "hit": 2, "bypass": 1, "stale_error": 1, "revalidated": 1,
    }  # fmt: skip
