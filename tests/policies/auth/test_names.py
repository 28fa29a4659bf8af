"""Names in client certificates, and the patterns for them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from gateway.policies.auth.names import CertificateNames, compile_pattern, read_names
from tests.support.certificates import Authority

AUTHORITY = Authority()


def names(subject: str = "", **kinds: Any) -> CertificateNames:
    return read_names(AUTHORITY.issue(subject, **kinds).der)


def test_claims() -> None:
    """Subject, issuer, names, fingerprint, serial and end are what a policy can ask for."""
    pair = AUTHORITY.issue(
        "CN=billing,OU=batch,O=Acme",
        dns=["billing.internal"],
        uris=["spiffe://prod/ns/a/sa/b"],
        emails=["bot@acme.example"],
        addresses=["10.0.0.1"],
    )
    found = read_names(pair.der)

    assert found.claims == {
        "subject": "CN=billing,OU=batch,O=Acme",
        "cn": "billing",
        "issuer": "CN=Test Authority",
        "serial": f"{pair.certificate.serial_number:x}",
        "fingerprint": hashlib.sha256(pair.der).hexdigest(),
        "not_after": int(pair.certificate.not_valid_after_utc.timestamp()),
        "spiffe_id": "spiffe://prod/ns/a/sa/b",
        "san": {
            "dns": ["billing.internal"],
            "uri": ["spiffe://prod/ns/a/sa/b"],
            "email": ["bot@acme.example"],
            "ip": ["10.0.0.1"],
        },
    }


def test_what_is_no_certificate() -> None:
    """Bytes that are none are a ValueError."""
    for garbage in (b"", b"\x30\x00", b"certificate"):
        with pytest.raises(ValueError, match="can't be read"):
            read_names(garbage)


@pytest.mark.parametrize(
    ("pattern", "uris", "name"),
    [
        ("spiffe://prod/ns/*/sa/*", ["spiffe://prod/ns/a/sa/b"], "spiffe://prod/ns/a/sa/b"),
        ("spiffe://prod/ns/a/sa/b", ["spiffe://prod/ns/a/sa/b"], "spiffe://prod/ns/a/sa/b"),
        ("spiffe://prod/ns/*/sa/*", ["spiffe://prod/ns/a/sa/b/c"], ""),
        ("spiffe://prod/ns/*/sa/*", ["spiffe://prod/ns/a/x/sa/b"], ""),
        ("spiffe://prod/ns/*/sa/*", ["spiffe://prod/ns//sa/b"], ""),
        ("spiffe://prod/ns/*/sa/*", ["spiffe://prod/ns/a/sa/.."], ""),
        ("spiffe://prod/ns/*/sa/*", ["spiffe://prod/ns/a/sa/b?x"], ""),
        ("spiffe://prod/ns/*/sa/*", ["spiffe://prod/ns/a%2fb/sa/b"], ""),
        ("spiffe://prod/ns/*/sa/*", ["spiffe://stage/ns/a/sa/b"], ""),
        ("spiffe://prod/ns/*/sa/*", ["spiffe://prod.evil/ns/a/sa/b"], ""),
        ("spiffe://prod/*", ["spiffe://prod/a", "spiffe://prod/b"], ""),
        ("spiffe://prod/*", ["spiffe://prod/a", "https://x/y"], ""),
        ("https://svc.internal/*", ["https://x/y", "https://svc.internal/a"],
         "https://svc.internal/a"),
        ("https://svc.internal/*", ["https://svc.internal/a?b"], ""),
        ("https://svc.internal/*", ["https://svc.internal/"], ""),
    ],
)  # fmt: skip
def test_uris(pattern: str, uris: list[str], name: str) -> None:
    """`*` is one segment; a SPIFFE id stands alone and is written as the standard says."""
    assert compile_pattern(pattern)(names("CN=x", uris=uris)) == name


@pytest.mark.parametrize(
    ("pattern", "dns", "name"),
    [
        ("billing.internal", ["other", "Billing.internal"], "billing.internal"),
        ("*.internal", ["billing.internal"], "billing.internal"),
        ("*.internal", ["a.b.internal"], ""),
        ("*.internal", ["internal"], ""),
        ("*.internal", ["*.internal"], ""),
        ("billing.internal", ["*.internal"], ""),
        ("billing.internal", [], ""),
    ],
)
def test_dns(pattern: str, dns: list[str], name: str) -> None:
    """`*` is one label, and a certificate's own wildcard is nobody's name."""
    assert compile_pattern(pattern)(names("CN=billing.internal", dns=dns)) == name


@pytest.mark.parametrize(
    ("pattern", "subject", "name"),
    [
        ("CN=billing,OU=batch,O=Acme", "CN=billing,OU=batch,O=Acme", "billing"),
        ("CN=*,OU=batch,O=Acme", "CN=billing,OU=batch,O=Acme", "billing"),
        ("CN=*,OU=batch,O=Acme", "CN=billing,OU=web,O=Acme", ""),
        ("CN=*,O=Acme", "CN=billing,OU=batch,O=Acme", ""),
        ("CN=billing", "CN=billing,O=Evil", ""),
        ("CN=billing,O=Acme", "O=Acme,CN=billing", ""),
        ("CN=billing", "CN=Billing", ""),
        ("CN=a\\,O\\=Acme", "CN=a\\,O\\=Acme", "a,O=Acme"),
        ("CN=a,O=Acme", "CN=a\\,O\\=Acme", ""),
        ("OU=a+CN=b,O=Acme", "CN=b+OU=a,O=Acme", "b"),
        ("O=Acme", "O=Acme", "O=Acme"),
        ("2.5.4.5=77,CN=b", "2.5.4.5=77,CN=b", "b"),
    ],
)
def test_subjects(pattern: str, subject: str, name: str) -> None:
    """Compared attribute by attribute, in order, nothing left over; `*` is one value."""
    assert compile_pattern(pattern)(names(subject)) == name


@pytest.mark.parametrize(
    ("pattern", "kinds", "name"),
    [
        ("bot@acme.example", {"emails": ["bot@ACME.example"]}, "bot@acme.example"),
        ("*@acme.example", {"emails": ["a@b.example", "bot@acme.example"]}, "bot@acme.example"),
        ("Bot@acme.example", {"emails": ["bot@acme.example"]}, ""),
        ("*@acme.example", {"dns": ["acme.example"]}, ""),
        ("10.0.0.1", {"addresses": ["10.0.0.1"]}, "10.0.0.1"),
        ("10.0.0.1", {"dns": ["10.0.0.1"]}, ""),
        ("FD00::1", {"addresses": ["fd00:0::1"]}, "fd00::1"),
        ("*", {"uris": ["spiffe://prod/a"]}, "spiffe://prod/a"),
        ("*", {}, "x"),
    ],
)
def test_the_rest(pattern: str, kinds: dict[str, list[str]], name: str) -> None:
    """Mailboxes, addresses, and every certificate."""
    assert compile_pattern(pattern)(names("CN=x", **kinds)) == name


@pytest.mark.parametrize(
    "pattern",
    ["spiffe://*/a", "spiffe://prod/a*", "*://prod/a", "a*.internal", "a..b", "", ".internal",
     "@acme", "a@", "a*@b", "a@*", "X=y,Z", "CN=a,", "=a"],
)  # fmt: skip
def test_patterns_that_are_none(pattern: str) -> None:
    """What could never match, or not as it seems, is refused when it is read."""
    with pytest.raises(ValueError, match=r"stands for|expected"):
        compile_pattern(pattern)
