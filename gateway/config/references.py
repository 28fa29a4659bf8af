"""References in strings: `${env:NAME}`, `${env:NAME:-default}`, `${file:/path}`.

`$${` is a plain `${`.
What a reference gives is a secret until proved otherwise: errors name the reference, never the
value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 1024 * 1024

# Replacing every "2" or "true" in a dump would hide nothing and garble much.
_MIN_SECRET: Final = 4
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^{}]*)(\}|\{|\Z)", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_FORMS: Final = "write ${env:NAME}, ${env:NAME:-default} or ${file:/path}, or $${ for a plain ${"


class ReferenceFailed(ValueError):
    """The reference gives nothing. `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class References:
    """Resolves references against one environment, and remembers what was read.

    `used` holds every value by reference, `files` every file: the fingerprint and the watcher need
    them. A relative file starts at `base_dir`.
    """

    def __init__(self, environ: Mapping[str, str], base_dir: Path) -> None:
        self.environ = environ
        self._base_dir = base_dir
        self.used: dict[str, str] = {}
        self.files: list[Path] = []

    def resolve(self, text: str) -> tuple[str, str]:
        """The text with its references replaced, and their names ("" if there was none).

        The names leave out defaults and the text around: both may be secret. Raises
        ReferenceFailed.
        """
        names: list[str] = []

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            names.append("${" + (match[1] or "").partition(":-")[0] + "}")
            if match[2] != "}":
                nested = match[2] == "{"
                raise ReferenceFailed(
                    "a reference can't hold another one" if nested else "a reference is not closed",
                    "" if nested else _FORMS,
                )
            return self._look_up(match[1])

        return _REFERENCE.sub(replace, text), ", ".join(names)

    def secrets(self) -> dict[str, str]:
        """By value, the name of the reference that gave it. Short values and defaults are none."""
        found: dict[str, str] = {}
        for body, value in self.used.items():
            name, _, default = body.partition(":-")
            if len(value) >= _MIN_SECRET and value != default:
                found[value] = "${" + name + "}"
        # The longest first, so that one which holds another is replaced whole.
        return dict(sorted(found.items(), key=lambda item: -len(item[0])))

    def _look_up(self, body: str) -> str:
        if body not in self.used:
            kind, colon, rest = body.partition(":")
            if colon and kind == "env":
                self.used[body] = self._from_environment(rest)
            elif colon and kind == "file" and rest:
                self.used[body] = self._from_file(rest)
            else:
                raise ReferenceFailed("unknown kind of reference", _FORMS)
        return self.used[body]

    def _from_environment(self, body: str) -> str:
        name, separator, default = body.partition(":-")
        if not _NAME.fullmatch(name):
            raise ReferenceFailed("a reference names no environment variable", _FORMS)
        value = self.environ.get(name)
        if separator:
            # As in a shell: :- also stands in for a variable that is empty.
            return value or default
        if value is None:
            hint = f"set it, or write ${{env:{name}:-default}}"
            raise ReferenceFailed(f"the environment variable {name} is not set", hint)
        return value

    def _from_file(self, name: str) -> str:
        try:
            path = self._base_dir / name
            if not path.is_file():
                raise ReferenceFailed(f"the file {name} of a reference is not there")
            self.files.append(path)
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise ReferenceFailed(f"the file {name} of a reference is not UTF-8 text") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ReferenceFailed(f"the file {name} of a reference: {reason}") from None
        except ReferenceFailed:
            raise
        except ValueError:
            raise ReferenceFailed("the path of a reference can't be a file's") from None
        if len(data) > MAX_FILE_BYTES:
            raise ReferenceFailed(f"the file {name} of a reference is larger than 1 MiB")
        return text.removesuffix("\n").removesuffix("\r")
