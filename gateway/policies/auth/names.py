"""The names in a client certificate, and patterns for them: subject, DNS, URI, e-mail, address.

Pure. A pattern's kind shows in how it is written. `*` stands for exactly one part: a segment of a
URI's path, a label of a DNS name, the mailbox of an address, a value of a subject. Alone it is
every certificate. All else must agree; letters of DNS names, and of the domain of a mailbox, in
either case.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

ANY: Final = "*"
_SPIFFE: Final = "spiffe://"
# SPIFFE-ID section 2: a trust domain, and segments of letters, digits, dots, hyphens, underscores.
_SPIFFE_ID: Final = re.compile(
    r"spiffe://[a-z0-9._-]+(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*", re.ASCII
)


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """What a certificate says about whose it is.

    `subject` is written as RFC 4514 does, the most specific part first. `not_after` is in Unix
    seconds; `fingerprint` is the SHA-256 of the DER, in hex.
    """

    subject: str
    rdns: tuple[frozenset[tuple[str, str]], ...]
    common_name: str
    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    issuer: str = ""
    serial: str = ""
    not_after: float = 0.0
    fingerprint: str = ""
    claims: dict[str, object] = field(default_factory=dict, compare=False)

    @property
    def spiffe_id(self) -> str:
        """The SPIFFE id, if that is the only URI, as X.509-SVID section 2 asks; else empty."""
        if len(self.uris) == 1 and _SPIFFE_ID.fullmatch(self.uris[0]):
            return self.uris[0]
        return ""


# A query or fragment is no part of a path's segment.
_OPENS_MORE: Final = re.compile(r"[?#]")

Matcher = Callable[[CertificateNames], str]
"""Gives the name by which a certificate matches, or the empty string."""


def read_names(der: bytes) -> CertificateNames:
    """The names in a certificate. Raises ValueError if it can't be read."""
    try:
        return _read(der)
    except Exception as error:
        # The library has a dozen kinds of errors for what an authority may have signed.
        raise ValueError("the certificate can't be read") from error


def _read(der: bytes) -> CertificateNames:
    certificate = x509.load_der_x509_certificate(der)
    dns: list[str] = []
    uris: list[str] = []
    emails: list[str] = []
    addresses: list[str] = []
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        pass
    else:
        names = extension.value
        dns = names.get_values_for_type(x509.DNSName)
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        emails = names.get_values_for_type(x509.RFC822Name)
        addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    found = CertificateNames(
        subject=certificate.subject.rfc4514_string(),
        rdns=_rdns(certificate.subject),
        # The most specific one, which stands last in the certificate.
        common_name=str(common[-1].value) if common else "",
        dns=tuple(dns),
        uris=tuple(uris),
        emails=tuple(emails),
        addresses=tuple(addresses),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        not_after=certificate.not_valid_after_utc.timestamp(),
        fingerprint=certificate.fingerprint(SHA256()).hex(),
    )
    found.claims.update(_claims(found))
    return found


def _rdns(name: x509.Name) -> tuple[frozenset[tuple[str, str]], ...]:
    return tuple(
        frozenset((each.oid.dotted_string, str(each.value)) for each in rdn)
        for rdn in reversed(name.rdns)
    )


def _claims(names: CertificateNames) -> dict[str, object]:
    san: dict[str, list[str]] = {
        "dns": list(names.dns),
        "uri": list(names.uris),
        "email": list(names.emails),
        "ip": list(names.addresses),
    }
    claims: dict[str, object] = {
        "subject": names.subject,
        "issuer": names.issuer,
        "serial": names.serial,
        "fingerprint": names.fingerprint,
        "not_after": int(names.not_after),
        "san": {kind: values for kind, values in san.items() if values},
    }
    if names.common_name:
        claims["cn"] = names.common_name
    if names.spiffe_id:
        claims["spiffe_id"] = names.spiffe_id
    return claims


def compile_pattern(pattern: str) -> Matcher:
    """What `pattern` asks for. Raises ValueError, whose text says how it should be written."""
    if pattern == ANY:
        return best_name
    if "://" in pattern:
        return _uri_matcher(pattern)
    if "=" in pattern:
        return _subject_matcher(pattern)
    if "@" in pattern:
        return _email_matcher(pattern)
    try:
        address = str(ipaddress.ip_address(pattern))
    except ValueError:
        return _dns_matcher(pattern)
    return lambda names: address if address in names.addresses else ""


def best_name(names: CertificateNames) -> str:
    """The name to call a certificate by: SPIFFE id, common name, or the whole subject."""
    return names.spiffe_id or names.common_name or names.subject or names.fingerprint


def _uri_matcher(pattern: str) -> Matcher:
    wanted = pattern.split("/")
    if any(ANY in part and part != ANY for part in wanted) or ANY in wanted[:3]:
        raise ValueError("in a URI, * stands for one whole segment of the path")
    is_spiffe = pattern.startswith(_SPIFFE)

    def match(names: CertificateNames) -> str:
        # Two URIs are two identities, of which the pattern would see only one.
        uris = (names.spiffe_id,) if is_spiffe else names.uris
        return next((uri for uri in uris if uri and _same_parts(uri.split("/"), wanted)), "")

    return match


def _dns_matcher(pattern: str) -> Matcher:
    wanted = pattern.lower().split(".")
    if any(ANY in part and part != ANY for part in wanted) or not all(wanted):
        raise ValueError("in a DNS name, * stands for one whole label")

    def match(names: CertificateNames) -> str:
        for name in names.dns:
            lowered = name.lower()
            # A certificate for `*.internal` is not one of every host below: names only.
            if ANY not in lowered and _same_parts(lowered.split("."), wanted):
                return lowered
        return ""

    return match


def _email_matcher(pattern: str) -> Matcher:
    mailbox, _, domain = pattern.rpartition("@")
    if not mailbox or not domain or ANY in domain or (ANY in mailbox and mailbox != ANY):
        raise ValueError("in an e-mail address, * stands for the whole mailbox")

    def match(names: CertificateNames) -> str:
        for name in names.emails:
            box, _, host = name.rpartition("@")
            if host.lower() == domain.lower() and box and mailbox in (box, ANY):
                return f"{box}@{host.lower()}"
        return ""

    return match


def _subject_matcher(pattern: str) -> Matcher:
    try:
        wanted = _rdns(x509.Name.from_rfc4514_string(pattern))
    except (ValueError, TypeError):
        raise ValueError("expected a subject as RFC 4514 writes it: CN=billing,O=Acme") from None

    def match(names: CertificateNames) -> str:
        if len(names.rdns) != len(wanted):
            return ""
        if not all(map(_same_rdn, names.rdns, wanted)):
            return ""
        return names.common_name or names.subject

    return match


def _same_parts(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(
        part == want or (want == ANY and part != "" and not _OPENS_MORE.search(part))
        for part, want in zip(parts, wanted, strict=True)
    )


def _same_rdn(rdn: frozenset[tuple[str, str]], wanted: frozenset[tuple[str, str]]) -> bool:
    if len(rdn) != len(wanted):
        return False
    given = dict(rdn)
    return all(
        kind in given and value in (given[kind], ANY) and given[kind] for kind, value in wanted
    )
