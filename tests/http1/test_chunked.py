"""The chunked decoder, fed in every way. The raw cases are in `tests/conformance`."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http1.chunked import LAST_CHUNK, ChunkedDecoder, encode_chunk
from gateway.http1.head import MalformedMessage


def test_payload_trailers_and_remainder() -> None:
    """RFC 9112 7.1: payload out, trailers apart, and what follows untouched."""
    decoder = ChunkedDecoder()
    data = decoder.feed(b"3\r\nabc\r\n2;x\r\nde\r\n0\r\nX-Sum: 1\r\n\r\nGET /")
    assert data == b"abcde"
    assert decoder.done
    assert decoder.trailers == [(b"x-sum", b"1")]
    assert decoder.remainder == b"GET /"


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_what_is_encoded_is_decoded_however_it_is_cut(chunks: list[bytes], cuts: list[int]) -> None:
    """RFC 9112 7.1: the coding is transparent."""
    wire = b"".join(map(encode_chunk, chunks)) + LAST_CHUNK + b"rest"
    edges = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    decoder = ChunkedDecoder()
    got = rest = b""
    for one, two in pairwise(edges):
        if decoder.done:
            rest += wire[one:two]
        else:
            got += decoder.feed(wire[one:two])
    assert got == b"".join(chunks)
    assert decoder.done
    assert decoder.remainder + rest == b"rest"


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No input makes the decoder raise anything but MalformedMessage."""
    decoder = ChunkedDecoder()
    try:
        decoder.feed(data)
    except MalformedMessage:
        return
    assert decoder.done or not decoder.remainder


@pytest.mark.parametrize(
    "start",
    [b"z", b" ", b"-", b"5 x", b"5\rx", b"5;\0", b"5;a\n", b"f" * 16, b"0\r\nX: \0", b"0\r\n\n"],
)
def test_a_broken_start_is_refused_at_once(start: bytes) -> None:
    """Nothing that follows could make these good, so nothing is waited for."""
    with pytest.raises(MalformedMessage):
        ChunkedDecoder().feed(start)


def test_a_hostile_extension_costs_no_more_than_its_length() -> None:
    """Long extensions are refused without backtracking."""
    for line in (b"5" + b" ;a" * 1300, b"5" + b"\t" * 4000, b'5;a="' + b"\\a" * 2000):
        with pytest.raises(MalformedMessage):
            ChunkedDecoder().feed(line + b"\x00\r\n")


def test_the_decoder_is_closed_after_its_end() -> None:
    """Bytes behind the end belong to someone else."""
    decoder = ChunkedDecoder()
    decoder.feed(LAST_CHUNK)
    with pytest.raises(MalformedMessage):
        decoder.feed(b"x")
