"""Who the client is behind proxies, and what we tell the upstream about it.

Two halves that must agree, so they share this file:
- `TrustedProxies(networks).resolve(peer, headers)` reads X-Forwarded-* or Forwarded (RFC 7239), if
  the peer is a proxy that the operator trusts, and nobody is by default;
- `forwarding_fields(request)` gives the fields for the upstream, which replace all of
  `FORWARDING_FIELDS`: the peer is appended to what a trusted proxy said, anything else is
  overwritten.

Rules. The chain of hops is read from the right: each entry was written by the hop to its right, so
it counts only as long as those are trusted, and the first that is not trusted is the client. An
entry that is no address (`unknown`, `_hidden`, garbage) ends the chain: the client is then unknown,
the empty address, and never the proxy that reported it, which would often be allowed more. If the
peer sent both kinds, X-Forwarded-For counts: every proxy writes it, while a Forwarded beside it may
well be the client's own. For that reason the upstream gets both fields made from one chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from gateway.addresses import Network, Networks, parse_address
from gateway.http1.fields import FORWARDED_FIELDS, PROXY_FIELDS
from gateway.message import Headers, RawHeaders, Request

# Each is dropped on the way to the upstream, whoever sent it, before ours are added.
FORWARDING_FIELDS: Final = FORWARDED_FIELDS | PROXY_FIELDS

# A chain longer than this is no chain; what lies beyond is not looked at.
_MAX_HOPS: Final = 32
_MEMO_SIZE: Final = 4096
# Characters in a key. Longer ones are rare when honest, and a hostile client's to choose.
_MEMO_KEY: Final = 512
_SCHEMES: Final = frozenset({"http", "https"})
_PORTS: Final = {"http": "80", "https": "443"}
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,255})(?::[0-9]{1,5})?")
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*)")')
_PORT: Final = re.compile(r"[0-9]{1,5}")

_SAID: Final = (b"x-forwarded-for", b"forwarded", b"x-forwarded-host", b"x-forwarded-port")
# Answers of pure functions, by their arguments; started over when it is full.
_fields_memo: dict[tuple[str, str, int, bytes | None, tuple[str, ...]], RawHeaders] = {}


class ClientAddress(NamedTuple):
    """The client behind the proxies.

    `ip` is "" if it can't be known. `scheme` (http or https) and `host` (with port, as sent) are
    what the trusted proxy says the client used, or None. `trusted` tells whether the peer is one.
    """

    ip: str
    scheme: str | None = None
    host: str | None = None
    trusted: bool = False


class Hop(NamedTuple):
    """One entry of the chain. `ip` is None if the entry is no address."""

    ip: str | None
    scheme: str | None = None
    host: str | None = None


class TrustedProxies:
    """The networks whose word about the client is believed."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = Networks(networks)
        self._memo: dict[tuple[str, str, str, str, str], ClientAddress] = {}

    def resolve(self, peer: str, headers: Headers) -> ClientAddress:
        """The client of a request that came from `peer`. Never raises, whatever the fields say."""
        if not self._networks or not self._networks.contains(peer):
            return ClientAddress(peer)
        key = (
            peer,
            _joined(headers, b"x-forwarded-for"),
            _joined(headers, b"forwarded"),
            _joined(headers, b"x-forwarded-proto"),
            _joined(headers, b"x-forwarded-host"),
        )
        known = self._memo.get(key)
        if known is None:
            known = self._resolve(*key)
            if sum(map(len, key)) <= _MEMO_KEY:
                if len(self._memo) >= _MEMO_SIZE:
                    self._memo.clear()
                self._memo[key] = known
        return known

    def _resolve(self, peer: str, xff: str, forwarded: str, xfp: str, xfh: str) -> ClientAddress:
        hops = _x_forwarded(xff, xfp, xfh) if xff else _forwarded(forwarded)
        if not hops:
            # A proxy that speaks for itself, or one that says no more than scheme and host.
            return ClientAddress(peer, _scheme(_last(xfp)), _host(_last(xfh)), trusted=True)
        seen = hops[0]
        for hop in hops:
            seen = hop
            if hop.ip is None or not self._networks.contains(hop.ip):
                break
        return ClientAddress(seen.ip or "", seen.scheme, seen.host, trusted=True)


def _joined(headers: Headers, name: bytes) -> str:
    """All lines of a list field as one (RFC 9110 section 5.3)."""
    if headers.get(name) is None:
        return ""
    return b",".join(headers.get_all(name)).decode("latin-1")


def _entries(value: str) -> list[str]:
    """The entries of a list field from the right, nearest hop first.

    Quotes are not looked at: a client could open one that swallows what proxies append. No honest
    entry has a comma in quotes, and the halves of one that has are no addresses.
    """
    nearest = value.rsplit(",", _MAX_HOPS)[: -_MAX_HOPS - 1 : -1]
    # Empty members of a list mean nothing (RFC 9110 section 5.6.1).
    return [entry for entry in (each.strip(" \t") for each in nearest) if entry]


def _last(value: str) -> str:
    return value.rpartition(",")[2].strip(" \t")


def _x_forwarded(xff: str, xfp: str, xfh: str) -> list[Hop]:
    """Hops from X-Forwarded-*, nearest first.

    Lists of schemes and hosts run beside the addresses; where they are shorter, the nearest proxy's
    word counts for all.
    """
    schemes, hosts = _entries(xfp) or [""], _entries(xfh) or [""]
    return [
        Hop(
            node_address(entry),
            _scheme(schemes[place] if place < len(schemes) else schemes[0]),
            _host(hosts[place] if place < len(hosts) else hosts[0]),
        )
        for place, entry in enumerate(_entries(xff))
    ]


def _forwarded(value: str) -> list[Hop]:
    """Hops from a Forwarded field (RFC 7239 section 4), nearest first."""
    return [_element(entry) for entry in _entries(value)] if value else []


def _element(text: str) -> Hop:
    pairs: dict[str, str] = {}
    for part in text.split(";"):
        match = _PAIR.fullmatch(part.strip(" \t"))
        if match is None or match[1].lower() in pairs:
            return Hop(None)
        value = match[2] if match[2] is not None else re.sub(r"\\(.)", r"\1", match[3])
        pairs[match[1].lower()] = value
    return Hop(
        node_address(pairs.get("for", "")),
        _scheme(pairs.get("proto", "")),
        _host(pairs.get("host", "")),
    )


def node_address(text: str) -> str | None:
    """The address in an entry: bare, with a port, or IPv6 in brackets (RFC 7239 section 6).

    None if there is none: `unknown`, an obfuscated `_name`, or anything else.
    """
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in host or (port and not _PORT.fullmatch(port[1:])):
            return None
        if port and port[0] != ":":
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not _PORT.fullmatch(port):
            return None
    else:
        host = text
    address = parse_address(host)
    return None if address is None else str(address)


def _scheme(text: str) -> str | None:
    scheme = text.lower()
    return scheme if scheme in _SCHEMES else None


def _host(text: str) -> str | None:
    return text if _HOST.fullmatch(text) else None


def forwarding_fields(request: Request) -> RawHeaders:
    """The fields that tell the upstream about the client. The list is shared: do not change it.

    For a trusted peer the chain is what it sent, and the peer; for any other the peer alone. X-
    Forwarded-Proto, -Host and -Port say what the client used, as far as that is known.
    """
    headers = request.headers
    said: tuple[str, ...] = ()
    if request.trusted:
        said = tuple([_joined(headers, name) for name in _SAID])
    key = request.peer, request.scheme, request.port, headers.get(b"host"), said
    fields = _fields_memo.get(key)
    if fields is None:
        fields = _own(*key)
        if len(key[3] or b"") + sum(map(len, said)) <= _MEMO_KEY:
            if len(_fields_memo) >= _MEMO_SIZE:
                _fields_memo.clear()
            _fields_memo[key] = fields
    if request.trusted:
        return [*[pair for pair in headers.raw if pair[0] in PROXY_FIELDS], *fields]
    return fields


def _own(
    peer: str, scheme: str, port: int, host: bytes | None, said: tuple[str, ...]
) -> RawHeaders:
    """The fields for one peer; `said` is what it told itself, empty unless it is trusted."""
    name = (host or b"").decode("latin-1")
    if not said:
        return _compose([], peer, scheme, port, name)
    xff, forwarded, claimed, asked = said
    if xff:
        chain = _entries(xff)[::-1]
    else:
        chain = [hop.ip or "unknown" for hop in reversed(_forwarded(forwarded))]
    # The port that we were asked at is the proxy's business; the client used another one.
    number = _last(asked)
    return _compose(
        chain,
        peer,
        scheme,
        int(number) if _PORT.fullmatch(number) else 0,
        _host(_last(claimed)) or name,
    )


def _compose(chain: list[str], peer: str, scheme: str, port: int, host: str) -> RawHeaders:
    """Both kinds of fields from one chain, the client first; `port` 0 is taken from the host."""
    host = _host(host) or ""
    chain = [*chain, node_address(peer.partition("%")[0]) or "unknown"]
    if not port:
        named = re.search(r":([0-9]{1,5})$", host)
        number = named[1] if named else _PORTS.get(scheme, "")
    else:
        number = str(port)
    elements = [f"for={_node(entry)}" for entry in chain]
    if host:
        # The colon and the brackets are no token characters.
        elements[0] += f";host={host}" if re.fullmatch(_WORD, host) else f';host="{host}"'
    elements[0] += f";proto={scheme}"
    fields = [
        ("x-forwarded-for", ", ".join(chain)),
        ("x-forwarded-proto", scheme),
        ("x-forwarded-host", host),
        ("x-forwarded-port", number),
        ("forwarded", ", ".join(elements)),
    ]
    return [(name.encode(), value.encode("latin-1")) for name, value in fields if value]


def _node(entry: str) -> str:
    """A chain entry as a `for` value: IPv6 in brackets and quotes (RFC 7239 section 6)."""
    address = node_address(entry)
    if address is None:
        return "unknown"
    return f'"[{address}]"' if ":" in address else address
