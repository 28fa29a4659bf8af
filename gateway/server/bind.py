"""Binds the listening sockets, before anything else is built, so that a port in use shows at once.

On Linux each worker gets a socket of its own on the same port, and the kernel spreads connections
over them; sharing one socket would give most connections to whichever worker wakes first.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

from gateway.config.types import Address
from gateway.server.exits import StartupError


def bind(address: Address, what: str, groups: int = 1) -> list[list[socket.socket]]:
    """Sockets bound to `address`, one list for each of `groups` workers; they do not listen yet.

    `what` names the listener in the message of StartupError.
    """
    bound: list[list[socket.socket]] = []
    try:
        if address.is_unix:
            first = _bind_unix(Path(address.path))
            bound.append([first])
            bound.extend([first.dup()] for _ in range(1, groups))
            return bound
        spread = groups > 1 and sys.platform == "linux"
        candidates = _resolve(address)
        # A first look without sharing: with it, another gateway on this port would go unnoticed.
        probes = [_bind_tcp(each, reuse_port=False) for each in candidates]
        if not spread:
            bound.append(probes)
            bound.extend([each.dup() for each in probes] for _ in range(1, groups))
            return bound
        names = [each.getsockname() for each in probes]
        families = [each.family for each in probes]
        for probe in probes:
            probe.close()
        for _ in range(groups):
            group: list[socket.socket] = []
            bound.append(group)
            for family, name in zip(families, names, strict=True):
                group.append(_bind_tcp((family, name), reuse_port=True))
    except OSError as error:
        for group in bound:
            for each in group:
                each.close()
        raise StartupError(f"can't listen on {address} ({what}): {_reason(error)}") from None
    return bound


def unlink_unix(address: Address) -> None:
    """Remove the file of a unix socket that this process made."""
    if address.is_unix:
        Path(address.path).unlink(missing_ok=True)


def _resolve(address: Address) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Every address of the name; for no name, every interface, over IPv6 too if that works."""
    if not address.host:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        return [(family, ("", address.port))]
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    unique: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = []
    for family, _, _, _, name in found:
        if (family, tuple(name)) not in unique:
            unique.append((family, tuple(name)))
    # Two families would get two ports where the system chooses one.
    return unique[:1] if address.port == 0 else unique


def _bind_tcp(
    place: tuple[socket.AddressFamily, tuple[Any, ...]], *, reuse_port: bool
) -> socket.socket:
    family, name = place
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            every = name[0] in ("", "::")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if every else 1)
        sock.bind(name)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: Path) -> socket.socket:
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        # For the owner and the group: a sidecar's neighbour shares the group, nobody else should.
        path.chmod(0o660)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _clear_stale(path: Path) -> None:
    """Remove the socket of a process that is gone. Raises OSError if it is anything else."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
