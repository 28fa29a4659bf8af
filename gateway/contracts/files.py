"""Schemas and OpenAPI documents from files: JSON or YAML, bounded, and from where they may be.

A document may refer to files in its own directory and below, and in the configuration's; to nothing
else, and never over a network.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from gateway.config.yaml_text import UnreadableYaml, parse
from gateway.contracts.strict_json import MalformedJson, decode_file

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_FILES: Final = 500
SCHEME: Final = "lockgate"


class DocumentError(ValueError):
    """A document can't be read. The text names the file."""


def uri_of(path: Path) -> str:
    """The URI under which a file's document is known; never fetched, only compared."""
    return f"{SCHEME}://{quote(path.as_posix())}"


def resolve(base: str, reference: str) -> tuple[str, str]:
    """The document's URI and the fragment that `reference` means in the document `base`."""
    if reference.startswith("#"):
        return base, unquote(reference[1:])
    # urljoin joins only schemes that it knows.
    absolute = (
        urljoin("http" + base.removeprefix(SCHEME), reference)
        if _is_ours(base)
        else (urljoin(base, reference))
    )
    if _is_ours(base) and absolute.startswith("http:///"):
        absolute = SCHEME + absolute.removeprefix("http")
    document, _, fragment = absolute.partition("#")
    return document, unquote(fragment)


def _is_ours(uri: str) -> bool:
    return uri.startswith(f"{SCHEME}://")


class Files:
    """Reads documents, each once. `notes` are odd things that were met, by file.

    `base_dir` is the configuration's directory. `contents` are the bytes of what was read, by path;
    what is in there from the start is not read from the disk again.
    """

    def __init__(self, base_dir: Path, contents: Mapping[str, bytes] | None = None) -> None:
        self._base_dir = base_dir.resolve()
        self._documents: dict[str, Any] = {}
        self.notes: dict[Path, list[str]] = {}
        self.contents: dict[str, bytes] = dict(contents or {})

    def read(self, path: Path) -> tuple[str, Any]:
        """URI and data of a document that the configuration names. Raises DocumentError."""
        uri = uri_of(path)
        if uri not in self._documents:
            self._documents[uri] = self._load(path)
        return uri, self._documents[uri]

    def follow(self, uri: str, root: Path) -> Any:
        """The document that another one, whose root is the file `root`, refers to.

        Raises DocumentError if it is no file, or is not where it may be.
        """
        if uri in self._documents:
            return self._documents[uri]
        if not _is_ours(uri):
            raise DocumentError(f"{uri} is not a file, and nothing is fetched")
        path = Path(unquote(urlsplit(uri).path))
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):
            raise DocumentError("a path can't be a file's") from None
        if not any(real.is_relative_to(home) for home in (self._base_dir, root.resolve().parent)):
            raise DocumentError(f"{path} is outside the directories that may be read")
        if len(self._documents) >= MAX_FILES:
            raise DocumentError(f"more than {MAX_FILES} files")
        self._documents[uri] = document = self._load(path)
        return document

    def _load(self, path: Path) -> Any:
        data = self.contents.get(str(path))
        if data is None:
            data = self.contents[str(path)] = self._bytes(path)
        return self._parse(data, path)

    @staticmethod
    def _bytes(path: Path) -> bytes:
        try:
            # A pipe would block for ever, a device never end.
            if not stat.S_ISREG(path.stat().st_mode):
                raise DocumentError(f"{path} is no regular file")
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except DocumentError:
            raise
        except FileNotFoundError:
            raise DocumentError(f"the file {path} does not exist") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "its path can't be a file's"
            raise DocumentError(f"the file {path} can't be read: {reason}") from None
        if len(data) > MAX_BYTES:
            raise DocumentError(f"the file {path} is larger than {MAX_BYTES >> 20} MiB")
        return data

    def _parse(self, data: bytes, path: Path) -> Any:
        notes: list[str] = []
        try:
            if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
                try:
                    return decode_file(data, notes)
                except MalformedJson:
                    # YAML's flow style starts with the same characters.
                    if path.suffix == ".json":
                        raise
            return parse(data.decode("utf-8-sig"), notes)
        except UnicodeDecodeError:
            raise DocumentError(f"the file {path} is not UTF-8 text") from None
        except MalformedJson as error:
            raise DocumentError(f"the file {path} is not JSON: {error.reason}") from None
        except UnreadableYaml as error:
            raise DocumentError(f"the file {path} is not YAML: {error}") from None
        finally:
            if notes:
                self.notes[path] = notes
