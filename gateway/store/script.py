"""Lua scripts, each in a file of its own under `lua/`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the digest by which a server knows it; `begin` is what each call begins with."""

    name: str
    source: bytes
    sha: bytes
    begin: bytes

    @classmethod
    def load(cls, name: str, *before: str) -> Script:
        """The script of `lua/<name>.lua`. `before` names files that hold functions which several
        scripts use. Raises FileNotFoundError.
        """
        folder = files(__package__) / "lua"
        parts = [(folder / f"{each}.lua").read_bytes() for each in (*before, name)]
        return cls.of(b"".join(parts), name)

    @classmethod
    def of(cls, source: bytes, name: str = "inline") -> Script:
        """A script from its text."""
        # The protocol names scripts by SHA-1; nothing rests on its strength.
        digest = hashlib.sha1(source, usedforsecurity=False).hexdigest()
        sha = digest.encode("ascii")
        return cls(name, source, sha, b"\r\n$7\r\nEVALSHA\r\n$40\r\n" + sha)
