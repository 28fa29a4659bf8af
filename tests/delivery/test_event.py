"""Events as plain data: ids, records, keys, and what senders are told."""

from __future__ import annotations

import re
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.event import (
    Record,
    Try,
    decode_head,
    decode_record,
    encode,
)
from gateway.delivery.ids import new_id
from gateway.delivery.queue import digest, letter
from gateway.delivery.status import read, status_of
from gateway.delivery.target import key_field, key_of
from tests.delivery.queues import make_head


@given(st.floats(0, 2**47 / 1000))
def test_ids_hold_their_time(wall: float) -> None:
    """RFC 9562 section 5.7; and they sort by it."""
    made = new_id(wall)
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made
    )
    assert UUID(made).version == 7
    assert abs(int(made[:8] + made[9:13], 16) / 1000 - wall) <= 0.001
    assert made < new_id(wall + 0.002)
    assert made != new_id(wall)


def test_records_are_read_back() -> None:
    """An empty one for nothing, and one with more fields than are known here."""
    record = Record(attempts=2, history=[Try(1, 2.0, 3, 500, "x")], answer=b"\xff", progress=b"p")
    assert decode_record(encode(record)) == record
    assert decode_record(b"") == Record()
    longer = msgspec.msgpack.encode([*msgspec.structs.astuple(record), "of a newer version"])
    assert decode_record(longer) == record
    with pytest.raises(msgspec.MsgspecError):
        decode_head(b"\x93\x01\x02\x03")


def test_the_history_is_bounded() -> None:
    """Of very many attempts the last ones are kept."""
    record = Record()
    for number in range(200):
        record.note(Try(number, 1.0, 1, 500))
    assert [each.number for each in record.history] == list(range(150, 200))


def test_keys_as_fields() -> None:
    """Quoted as RFC 9651 asks; a replay has one of its own."""
    assert key_field(make_head(key='a"b\\c'), Record()) == b'"a\\"b\\\\c"'
    assert key_field(make_head(key="k"), Record(epoch=2), ".callback") == b'"k.2.callback"'
    assert key_field(make_head(key="\N{EURO SIGN}"), Record()) == b'"?"'
    assert key_of(make_head(key="k"), Record()) == "k"


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_digests_keep_parts_apart(one: list[str], two: list[str]) -> None:
    """Also where the parts' texts run together to the same."""
    assert (digest(*one) == digest(*two)) == (one == two)


def test_letters() -> None:
    """Five words."""
    assert letter("id", "api", "permanent", "", 400) == "id api permanent - 400"


def fields_of(**states: str) -> dict[bytes, bytes]:
    found = {b"head": encode(make_head()), b"open": b"1", b"dead": b"0"}
    for name, state in states.items():
        found[f"s:{name}".encode()] = state.encode()
        found[f"t:{name}".encode()] = encode(Record(attempts=1, detail="d", answer=b"\xffa"))
    return found


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ({"a": "q"}, "accepted"),
        ({"a": "d", "b": "w"}, "accepted"),
        ({"a": "d", "b": "o"}, "accepted"),
        ({"a": "x", "b": "r"}, "accepted"),
        ({"a": "d", "b": "n"}, "delivered"),
        ({"a": "n"}, "delivered"),
        ({"a": "d", "b": "x"}, "failed"),
        ({"a": "?"}, "accepted"),
    ],
)
def test_the_state_of_an_event(states: dict[str, str], state: str) -> None:
    """Settled when all targets are; failed if one gave it up."""
    stored = read("e", fields_of(**states))
    assert stored is not None
    assert status_of(stored).state == state
    assert stored.settled == (state != "accepted")


def test_what_senders_are_told() -> None:
    """States and counts; what targets answered is for operators; the callback is nobody's."""
    fields = fields_of(a="d", callback="q") | {b"callback": b"callback"}
    del fields[b"t:callback"]
    stored = read("e", fields)
    assert stored is not None
    brief, whole = status_of(stored), status_of(stored, full=True)
    assert [each.target for each in brief.targets] == ["a"]
    assert (brief.targets[0].detail, brief.targets[0].answer) == ("", "")
    assert (whole.targets[0].detail, whole.targets[0].answer) == ("d", "\N{REPLACEMENT CHARACTER}a")
    assert read("e", {}) is None
    with pytest.raises(msgspec.MsgspecError):
        read("e", fields | {b"t:a": b"\xc1"})
