"""W3C Trace Context, case by case."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.message import Headers
from gateway.observability.trace import IdSource, join, parse_traceparent, parse_tracestate

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01".encode()
OUT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])")


@pytest.fixture
def ids() -> IdSource:
    return IdSource(random.Random(7))


def test_a_valid_parent_is_continued(ids: IdSource) -> None:
    """The trace id stays, the gateway's span takes the parent's place."""
    headers = Headers([(b"host", b"x"), (b"traceparent", GOOD)])
    trace = join(headers, ids)
    assert (trace.trace_id, trace.parent_id, trace.flags) == (TRACE, PARENT, "01")
    assert headers.get_all(b"traceparent") == [f"00-{TRACE}-{trace.span_id}-01".encode()]
    assert trace.span_id != PARENT


def test_without_parent_a_trace_begins(ids: IdSource) -> None:
    """A request without the field gets one, and each request another trace."""
    headers = Headers([(b"host", b"x")])
    first = join(headers, ids)
    assert headers.get(b"traceparent") == f"00-{first.trace_id}-{first.span_id}-01".encode()
    assert first.parent_id == ""
    assert join(Headers([]), ids).trace_id != first.trace_id


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (GOOD, "01"),
        (f"00-{TRACE}-{PARENT}-00".encode(), "00"),
        (f"00-{TRACE}-{PARENT}-03".encode(), "03"),
        (f"00-{TRACE}-{PARENT}-ff".encode(), "03"),
        (f"cc-{TRACE}-{PARENT}-01".encode(), "01"),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later".encode(), "01"),
    ],
)
def test_accepted_forms(value: bytes, flags: str) -> None:
    """Known flags pass, unknown ones become zero, later versions are read as far as known."""
    assert parse_traceparent(value) == (TRACE, PARENT, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        f"00-{TRACE}-{PARENT}".encode(),
        f"00-{TRACE}-{PARENT}-1".encode(),
        f"00-{TRACE}-{PARENT}-01-".encode(),
        f"00-{TRACE}-{PARENT}-01-extra".encode(),
        f"cc-{TRACE}-{PARENT}-01.extra".encode(),
        f"ff-{TRACE}-{PARENT}-01".encode(),
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE.upper()}-{PARENT}-01".encode(),
        f"00-{TRACE[:-1]}g-{PARENT}-01".encode(),
        f"0-{TRACE}-{PARENT}-01".encode(),
        f" {GOOD.decode()}".encode(),
        GOOD + b"\n",
    ],
)
def test_refused_forms_begin_a_new_trace(value: bytes, ids: IdSource) -> None:
    """What is not exactly right is as good as nothing, and takes tracestate with it."""
    headers = Headers([(b"traceparent", value), (b"tracestate", b"a=1")])
    trace = join(headers, ids)
    assert trace.trace_id != TRACE
    assert OUT.fullmatch(headers.get(b"traceparent") or b"")
    assert b"tracestate" not in headers


def test_two_parents_are_none(ids: IdSource) -> None:
    """With two traceparent fields neither is believed."""
    headers = Headers([(b"traceparent", GOOD), (b"x", b"y"), (b"traceparent", GOOD)])
    trace = join(headers, ids)
    assert trace.trace_id != TRACE
    assert len(headers.get_all(b"traceparent")) == 1


def test_tracestate_gets_our_member_in_front(ids: IdSource) -> None:
    """Members of several fields are joined in order; an old member of ours is replaced."""
    headers = Headers(
        [
            (b"traceparent", GOOD),
            (b"tracestate", b"rojo=00f067aa0ba902b7, ,lockgate=old"),
            (b"tracestate", b"\tcongo=t61rcWkgMzE"),
        ]
    )
    trace = join(headers, ids)
    expected = f"lockgate={trace.span_id},rojo=00f067aa0ba902b7,congo=t61rcWkgMzE".encode()
    assert headers.get_all(b"tracestate") == [expected]


def test_tracestate_without_parent_is_dropped(ids: IdSource) -> None:
    """State of a trace that is not known belongs to nothing."""
    headers = Headers([(b"tracestate", b"a=1")])
    join(headers, ids)
    assert b"tracestate" not in headers


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"=1",
        b"A=1",
        b"a=1,a=2",
        b"a=x=y",
        b"a=\xff",
        b"a=1;b=2=3",
        b"a =1",
        b"1a=1",
        b"a=" + b"x" * 257,
        b",".join(b"k%d=1" % number for number in range(33)),
        b"," * 9000,
    ],
)
def test_a_bad_tracestate_is_dropped_and_the_trace_stays(value: bytes, ids: IdSource) -> None:
    """A malformed member, a key twice, or too many members discard the field, not the trace."""
    headers = Headers([(b"traceparent", GOOD), (b"tracestate", value)])
    assert join(headers, ids).trace_id == TRACE
    assert b"tracestate" not in headers


def test_a_full_tracestate_loses_its_last_member(ids: IdSource) -> None:
    """With ours in front there are still no more than 32."""
    full = b",".join(b"k%d=1" % number for number in range(32))
    headers = Headers([(b"traceparent", GOOD), (b"tracestate", full)])
    join(headers, ids)
    members = parse_tracestate(headers.get_all(b"tracestate"))
    assert members is not None
    assert len(members) == 32
    assert members[-1] == b"k30=1"


def test_multi_tenant_keys_are_members() -> None:
    """`tenant@system` keys, and values with inner spaces, are valid."""
    assert parse_tracestate([b"fw529a3039@dt=FfffffC8 a;b:c"]) == [b"fw529a3039@dt=FfffffC8 a;b:c"]


def test_ids_are_never_all_zeros() -> None:
    """Even a generator that yields only zeros can't produce an invalid id."""

    class Zero(random.Random):
        def randbytes(self, n: int) -> bytes:
            return bytes(n)

    source = IdSource(Zero())
    for _ in range(300):
        made = source.take()
        assert len(made) == 48
        assert int(made[:32], 16)
        assert int(made[32:], 16)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_give_a_valid_outgoing_field(value: bytes) -> None:
    """Whatever a client sends, the upstream sees one well-formed traceparent."""
    headers = Headers([(b"traceparent", value), (b"tracestate", value)])
    join(headers, IdSource(random.Random(1)))
    (sent,) = headers.get_all(b"traceparent")
    assert OUT.fullmatch(sent)
