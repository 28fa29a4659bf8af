"""Strict JSON: what two readers could disagree about is refused, and numbers stay exact."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contracts.strict_json import MAX_DEPTH, MalformedJson, decode, decode_file

REFUSED = {
    "empty": b"",
    "blank": b" \n",
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "NaN": b"[NaN]",
    "Infinity": b"-Infinity",
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate as a name": b'{"\\udc00":1}',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "an overlong encoding": b'"\xc0\xaf"',
    "Latin-1": b'"\xe9"',
    "Latin-1 as a name": b'{"\xe9":1}',
    "a control character": b'"\x01"',
    "a raw line end": b'"a\nb"',
    "a comment": b"/**/1",
    "single quotes": b"'a'",
    "a trailing comma": b"[1,]",
    "something behind": b"{} {}",
    "NUL behind": b"{}\x00",
    "a leading zero": b"01",
    "a plus": b"+1",
    "a bare point": b"1.",
    "a form feed": b"\x0c1",
    "a bad escape": b'"\\x41"',
    "a member twice": b'{"a":1,"a":2}',
    "a member twice, once escaped": b'{"a":1,"\\u0061":2}',
    "a member twice, deep inside": b'[{"x":{"b":[{"a":1, "a":1}]}}]',
    "a member twice, a colon made up for it": b'{"a":1,"a":2,"b":"\\u003a"}',
    "a member twice, a colon made up for it before": b'{"b":"\\u003A","a":1,"a":2}',
    "a member twice among many": b'{"t":"12:30","u":"a:b","a":{"x":1},"a":{"x":1}}',
    "too large a double": b"1e400",
    "an exponent beyond all bounds": b"1e999999999",
    "an exponent beyond all bounds, small": b"[1e-999999999]",
    "zero with such an exponent": b"0e999999999",
    "thousands of digits": b"1" * 5000,
    "thousands of decimals": b"1." + b"1" * 5000,
    "nested too deeply": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "nested too deeply, objects": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "nested too deeply, brackets in texts": b'["]",' * 200 + b"1" + b',"["]' * 200,
    "nested without end": b"[" * 100_000,
    "nested without end, and closed": b"[" * 100_000 + b"]" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """Each of these is read differently by some reader, so it is not read at all."""
    with pytest.raises(MalformedJson) as caught:
        decode(REFUSED[name])
    assert caught.value.reason
    assert len(caught.value.reason) < 100


ACCEPTED: dict[bytes, Any] = {
    b'{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}': {
        "a": 1, "b": {"a": 1}, "c": [{"a": 1}, {"a": 1}],
    },
    b' {"t" : "12:30:00", "url": "http://x/y?z=1:2"} ': {
        "t": "12:30:00", "url": "http://x/y?z=1:2",
    },
    b'"\\u003a\\u005b\\u0022"': ':["',
    b'"\\ud83d\\ude00"': "\U0001f600",
    b'"\\u0000"': "\0",
    b"12345678901234567890123": 12345678901234567890123,
    b"-0": 0,
    b"1.10": 1.1,
    b"1e2": 100,
    b"null": None,
    b"[" * MAX_DEPTH + b"]" * MAX_DEPTH: None,
}  # fmt: skip


@pytest.mark.parametrize("text", ACCEPTED)
def test_accepted(text: bytes) -> None:
    """And these are read by everyone in the same way."""
    found = decode(text)
    if len(text) < 2 * MAX_DEPTH:
        assert found == ACCEPTED[text]


@pytest.mark.parametrize(
    "text", ["0.1", "19.99", "0.30000000000000004441", "9007199254740993.5", "1e-300", "1.5E+3"]
)
def test_numbers_keep_their_value(text: str) -> None:
    """What a double would round becomes a Decimal."""
    (found,) = decode(f"[{text}]".encode())

    assert Decimal(str(found)) == Decimal(text)


def plain(value: Any) -> Any:
    """Decimals as the floats that the standard library reads."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.sampled_from([":", "\\u003a", "[", "1.5"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)  # fmt: skip


@given(VALUES, st.booleans(), st.sampled_from([None, (",", ":")]))
def test_reads_what_the_standard_library_writes(
    value: Any, ascii_only: bool, separators: tuple[str, str] | None
) -> None:
    """However a value is written, it is read again."""
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)

    assert plain(decode(text.encode())) == json.loads(text)


NAMES = st.sampled_from(['"a"', '"\\u0061"', '"b"', '":"', '"\\u003a"'])
ITEMS = st.sampled_from(["1", '":"', '"\\u003a"', '"\\u003A\\u003a"', "1.50", "1e1", "{}", "[]"])


@given(st.lists(st.tuples(NAMES, ITEMS), max_size=6), st.sampled_from(["", " "]))
def test_a_member_twice_is_always_seen(pairs: list[tuple[str, str]], space: str) -> None:
    """However the texts around it are escaped: the oracle looks at every member."""
    text = "{" + ",".join(f"{name}{space}:{space}{item}" for name, item in pairs) + "}"
    names = [json.loads(name) for name, _ in pairs]

    if len(set(names)) == len(names):
        assert list(decode(text.encode())) == names
    else:
        with pytest.raises(MalformedJson):
            decode(text.encode())


@given(st.binary(max_size=40))
def test_no_bytes_end_in_anything_else(data: bytes) -> None:
    """Garbage is malformed, or JSON to the standard library as well."""
    try:
        found = decode(data)
    except MalformedJson:
        return
    assert plain(found) == json.loads(data)


def test_files_may_say_a_thing_twice() -> None:
    """A description comes from elsewhere: the last one counts, and that is noted."""
    notes: list[str] = []

    assert decode_file(b'\xef\xbb\xbf{"a": 1, "a": 2}', notes) == {"a": 2}
    assert len(notes) == 1
    with pytest.raises(MalformedJson):
        decode_file(b"{", notes)
