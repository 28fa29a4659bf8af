"""IP addresses as text from the outside, and sets of networks to look them up in.

Nothing here trusts its input: what is no address is None, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network

_MEMO_SIZE: Final = 4096
# What stands before the IPv4 address in one that is mapped (RFC 4291 section 2.5.5.2).
_MAPPED_BITS: Final = 96
# The longest an address can be: eight groups, or six and an IPv4 address (RFC 4291 section 2.2).
_MAX_TEXT: Final = 45


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address, or None if it is none. An IPv4-mapped IPv6 address is the IPv4 address.

    A zone (`fe80::1%eth0`) is refused: it means nothing outside the machine that wrote it.
    """
    if len(text) > _MAX_TEXT or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Networks:
    """A set of networks. `contains` costs one dictionary look-up for an address seen before.

    A new address costs one look-up for each prefix length in use, whatever the number of networks.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        prefixes: dict[tuple[int, int], set[int]] = {}
        for network in map(_unmapped, networks):
            key = network.version, network.max_prefixlen - network.prefixlen
            prefixes.setdefault(key, set()).add(int(network.network_address) >> key[1])
        self._prefixes = [(*key, starts) for key, starts in prefixes.items()]
        self._memo: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._prefixes)

    def contains(self, text: str) -> bool:
        """Whether the address is in one of the networks; what is no address is in none."""
        known = self._memo.get(text)
        return self._look_up(text) if known is None else known

    def _look_up(self, text: str) -> bool:
        # A zone is the kernel's own word for where a link-local peer sits; it is no part of what
        # networks are about.
        address = parse_address(text.partition("%")[0])
        found = address is not None and any(
            version == address.version and int(address) >> shift in starts
            for version, shift, starts in self._prefixes
        )
        # Started over when it is full: those who call now matter more than those who once did.
        if len(self._memo) >= _MEMO_SIZE:
            self._memo.clear()
        if len(text) <= _MAX_TEXT:
            self._memo[text] = found
        return found


def _unmapped(network: Network) -> Network:
    """`::ffff:10.0.0.0/104` as `10.0.0.0/8`, as addresses are looked up."""
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network
