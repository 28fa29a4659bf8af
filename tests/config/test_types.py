"""The small types: what each reads, what it refuses, and how it is written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.config.types import (
    Address,
    Cidr,
    ConfigPath,
    Count,
    Duration,
    Listen,
    Name,
    Percent,
    Ratio,
    Secret,
    Size,
    TargetAddress,
    TargetUrl,
    Timeout,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


def read(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (Duration, "250ms", 0.25),
        (Duration, "3s", 3.0),
        (Duration, "1.5m", 90.0),
        (Duration, "2h", 7200.0),
        (Duration, "30d", 2592000.0),
        (Duration, "0s", 0.0),
        (Size, "64KiB", 65536),
        (Size, "10MiB", 10485760),
        (Size, "5MB", 5000000),
        (Size, "1.5KiB", 1536),
        (Size, "12B", 12),
        (Size, 4096, 4096),
        (Size, "4096", 4096),
        (Percent, "5%", 0.05),
        (Percent, "0.5%", 0.005),
        (Percent, "100%", 1.0),
        (Ratio, "5%", 0.05),
        (Ratio, 0.25, 0.25),
        (Ratio, 1, 1.0),
        (Ratio, "0.5", 0.5),
        (Listen, "127.0.0.1:8080", Address("127.0.0.1", 8080)),
        (Listen, ":8080", Address("", 8080)),
        (Listen, "[::1]:0", Address("::1", 0)),
        (Listen, "localhost:80", Address("localhost", 80)),
        (Listen, "unix:/run/x.sock", Address(path="/run/x.sock")),
        (TargetUrl, "http://10.0.0.1:8080", TargetAddress("10.0.0.1", 8080)),
        (TargetUrl, "http://orders/", TargetAddress("orders", 80)),
        (TargetUrl, "https://orders", TargetAddress("orders", 443, tls=True)),
        (TargetUrl, "https://[fd00::1]", TargetAddress("fd00::1", 443, tls=True)),
        (TargetUrl, "unix:/run/x.sock", TargetAddress(path="/run/x.sock")),
        (Count, 1, 1),
        (Count, "7", 7),
        (Name, "orders.read-2_x", "orders.read-2_x"),
    ],
)
def test_reads(kind: Any, written: object, value: object) -> None:
    """Each type reads its notations."""
    assert read(kind, written) == value


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (Duration, 3),
        (Duration, "3"),
        (Duration, "-3s"),
        (Duration, "3 s"),
        (Duration, "3S"),
        (Duration, "٣s"),
        (Duration, "3s\n"),
        (Duration, True),
        (Duration, None),
        (Timeout, "0s"),
        (Size, -1),
        (Size, True),
        (Size, 1.5),
        (Size, "64kb"),
        (Size, "64"[:0]),
        (Percent, 5),
        (Percent, 0.05),
        (Percent, "101%"),
        (Percent, "-1%"),
        (Ratio, 5),
        (Ratio, -0.1),
        (Ratio, float("nan")),
        (Ratio, True),
        (Cidr, "10.0.0.1/8"),
        (Cidr, "10.0.0.0/33"),
        (Cidr, 167772160),
        (Cidr, "host"),
        (Listen, "8080"),
        (Listen, 8080),
        (Listen, "host:65536"),
        (Listen, "host:٣"),
        (Listen, "::1:80"),
        (Listen, "[::x]:80"),
        (Listen, "a b:80"),
        (Listen, "unix:"),
        (TargetUrl, "10.0.0.1:8080"),
        (TargetUrl, "ftp://a"),
        (TargetUrl, "http://"),
        (TargetUrl, "http://:80"),
        (TargetUrl, "http://a:0"),
        (TargetUrl, "http://a:b"),
        (TargetUrl, "http://u@a"),
        (TargetUrl, "http://a/path"),
        (TargetUrl, "http://a?q"),
        (Count, 0),
        (Count, True),
        (Name, "a b"),
        (Name, ""),
        (Name, "a\n"),
        (Name, "x" * 129),
        (Secret, ""),
    ],
)
def test_refuses(kind: Any, written: object) -> None:
    """Each type refuses what is near its notations, rather than guess."""
    with pytest.raises(ValidationError):
        read(kind, written)


@pytest.mark.parametrize(
    ("kind", "written", "hint"),
    [
        (Duration, 30, "write the unit, as in 30s or 30ms"),
        (Size, "10m", "did you mean 10MiB?"),
        (Size, "64kb", "did you mean 64KB?"),
        (Percent, 5, "write 5%"),
        (Cidr, "10.0.0.1/8", "did you mean 10.0.0.0/8?"),
        (Listen, 8080, "write :8080"),
        (TargetUrl, "orders:80", "write http://orders:80"),
    ],
)
def test_hints(kind: Any, written: object, hint: str) -> None:
    """Where a slip is easy to see, the error says what to write."""
    with pytest.raises(ValidationError) as caught:
        read(kind, written)

    assert caught.value.errors()[0]["ctx"]["hint"] == hint


@given(st.integers(0, 10**9))
def test_durations_are_written_as_they_are_read(milliseconds: int) -> None:
    """A duration survives being written and read again."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(0, 2**50))
def test_sizes_are_written_as_they_are_read(size: int) -> None:
    """A size survives being written and read again."""
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("written", "is_loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/x", True),
        (":1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("gateway.internal:1", False),
    ],
)
def test_loopback(written: str, is_loopback: bool) -> None:
    """Only loopback addresses and unix sockets count as private; a name could be anything."""
    assert read(Listen, written).is_loopback is is_loopback


@pytest.mark.parametrize("written", ["127.0.0.1:80", "[::1]:80", ":80", "unix:/run/x"])
def test_addresses_print_as_written(written: str) -> None:
    """An address prints in the notation that it was read from."""
    assert str(read(Listen, written)) == written


def test_secrets_do_not_print() -> None:
    """No way of printing a secret shows it."""
    secret = read(Secret, "hunter2")

    assert "hunter2" not in f"{secret} {secret!r} {TypeAdapter(Secret).dump_json(secret)!r}"
    assert secret.get_secret_value() == "hunter2"


def test_relative_paths_start_at_the_base_directory() -> None:
    """A relative path is resolved against `base_dir`, an absolute one stays."""
    adapter = TypeAdapter[Path](ConfigPath)
    context = {"base_dir": Path("/etc/lockgate")}

    assert adapter.validate_python("tls/a.pem", context=context) == Path("/etc/lockgate/tls/a.pem")
    assert adapter.validate_python("/a.pem", context=context) == Path("/a.pem")
