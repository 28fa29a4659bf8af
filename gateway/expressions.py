"""CEL expressions over a request: compiled when the configuration is loaded, asked per request.

The only module that imports the CEL library, and only once an expression is configured. What an
expression may name (its roots):

    request     method, host, path (normal form), query, headers: maps by name, header names in
                lower case; what was sent several times is joined with ", " (headers) or "," (query)
    params      the path's parameters
    claims      the caller's claims; empty for a caller without any
    consumer    the caller's name; "" for an anonymous one

An expression either holds, does not hold, or fails: with a key that is not there, a type that does
not fit, a result that is neither true nor false. Whoever asks decides what a failure means; for
authorization it is a refusal.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from gateway.message import Exchange, Request

MAX_LENGTH: Final = 2048
MAX_NESTING: Final = 24

_OPENING: Final = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
_STRING: Final = re.compile(r"""r?("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""", re.DOTALL)
# Names that a macro binds stand among the variables that the library reports.
_BOUND: Final = re.compile(
    r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*,"
)
_PLACE: Final = re.compile(r"<input>:(\d+):(\d+): (.*)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEMBER: Final = re.compile(r"\brequest\s*(?:\.\s*([A-Za-z_][A-Za-z0-9_]*))?")
_MAX_QUERY_FIELDS: Final = 256
# Of the standard library of CEL, what the library has. It does not tell by itself: for a function
# that it knows and arguments that do not fit it says the same as for one that it never heard of.
_FUNCTIONS: Final = frozenset(
    {
        "all", "bytes", "contains", "double", "duration", "dyn", "endsWith", "exists",
        "exists_one", "filter", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
        "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "has",
        "int", "map", "matches", "size", "startsWith", "string", "timestamp", "type", "uint",
    }
)  # fmt: skip


class ExpressionError(ValueError):
    """The text is no expression that could be asked. The message says where and why."""


class ExpressionFailed(Exception):
    """Asked of this exchange, the expression has no answer. `reason` names no value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotJson(ValueError):
    """An expression names the body, which is no JSON."""


class Expression:
    """One compiled expression. Raises ExpressionError if `text` can't be compiled, or names
    something that is not one of `roots`.
    """

    __slots__ = ("_makers", "_run", "text")

    def __init__(self, text: str, roots: Mapping[str, Maker] | None = None) -> None:
        known = ROOTS if roots is None else roots
        program = _compile(text)
        names = _roots_of(text, program, known)
        self.text = text
        self._run = program.execute
        makers = {name: known[name] for name in names}
        if "request" in makers and makers["request"] is _request:
            makers["request"] = _request_maker(text)
        self._makers = tuple(makers.items())

    def value(self, exchange: Exchange) -> Any:
        """What it is for this exchange. Raises ExpressionFailed."""
        try:
            return self._run({name: make(exchange) for name, make in self._makers})
        except Exception as error:  # noqa: BLE001 - the library raises whatever fits
            raise ExpressionFailed(_why(error)) from None
        except BaseException as error:
            # A panic of the library's is no Exception, and must not end the process either.
            if type(error).__name__ != "PanicException":
                raise
            raise ExpressionFailed("the evaluation failed") from None

    def holds(self, exchange: Exchange) -> bool:
        """Whether it is true of this exchange. Raises ExpressionFailed."""
        result = self.value(exchange)
        if result is True or result is False:
            return bool(result)
        raise ExpressionFailed("the result is neither true nor false")


def _request(exchange: Exchange) -> object:
    return {name: make(exchange.request) for name, make in _MEMBERS.items()}


def _params(exchange: Exchange) -> object:
    return dict(exchange.params)


def _claims(exchange: Exchange) -> object:
    principal = exchange.principal
    return {} if principal is None else dict(principal.claims)


def _consumer(exchange: Exchange) -> object:
    principal = exchange.principal
    return "" if principal is None else principal.consumer


def _headers(request: Request) -> object:
    found: dict[str, str] = {}
    for name, value in request.headers.raw:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _query(request: Request) -> object:
    pairs = parse_qsl(
        request.query.decode("latin-1"),
        keep_blank_values=True,
        errors="replace",
        max_num_fields=_MAX_QUERY_FIELDS,
    )
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


Maker = Callable[["Exchange"], object]
ROOTS: Final[Mapping[str, Maker]] = {
    "request": _request,
    "params": _params,
    "claims": _claims,
    "consumer": _consumer,
}
_MEMBERS: Final[Mapping[str, Callable[[Request], object]]] = {
    "method": lambda request: request.method,
    "host": lambda request: request.host,
    "path": lambda request: request.path,
    "query": _query,
    "headers": _headers,
}


def _request_maker(text: str) -> Maker:
    """Makes only the members of `request` that the text mentions: each costs microseconds."""
    mentioned = _MEMBER.findall(text)
    unknown = [name for name in mentioned if name and name not in _MEMBERS]
    if unknown and not _STRING.search(text):
        known = ", ".join(_MEMBERS)
        raise ExpressionError(f'a request has no "{unknown[0]}"; it has {known}')
    if "" in mentioned:
        return _request
    chosen = {name: _MEMBERS[name] for name in mentioned if name in _MEMBERS}
    return lambda exchange: {name: make(exchange.request) for name, make in chosen.items()}


def _roots_of(text: str, program: Any, known: Mapping[str, Maker]) -> list[str]:
    references = program.references()
    bound = set(_BOUND.findall(text))
    names = [name for name in references["variables"] if name not in bound or name in known]
    for name in names:
        if name not in known:
            choices = ", ".join(known)
            raise ExpressionError(f'unknown name "{name}"{_position(text, name)}; known: {choices}')
    for name in references["functions"]:
        if _NAME.fullmatch(name) and name not in _FUNCTIONS:
            raise ExpressionError(f'unknown function "{name}"{_position(text, name)}')
    return names


def _position(text: str, name: str) -> str:
    match = re.search(rf"\b{re.escape(name)}\b", text)
    if match is None:
        return ""
    line = text.count("\n", 0, match.start()) + 1
    column = match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1
    return f" at {line}:{column}"


def _compile(text: str) -> Any:
    _bound(text)
    try:
        return _library().compile(text)
    except ValueError as error:
        match = _PLACE.search(str(error))
        if match is None:
            raise ExpressionError("not a CEL expression") from None
        line, column, message = match.groups()
        message = re.sub(r" expecting \{.*\}$", "", message).removeprefix("Syntax error: ")
        raise ExpressionError(f"not a CEL expression, at {line}:{column}: {message}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ExpressionError("not a CEL expression") from None


def _bound(text: str) -> None:
    """Refuse what the parser could choke on: it takes gigabytes for thousands of brackets."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"an expression may have {MAX_LENGTH} characters")
    depth = 0
    for char in _STRING.sub("", text):
        depth += _OPENING.get(char, 0)
        if depth > MAX_NESTING:
            raise ExpressionError(f"an expression may have {MAX_NESTING} brackets open at once")


def _why(error: Exception) -> str:
    """In a few words, without a value of the request: a KeyError's key stands in the expression."""
    if isinstance(error, KeyError):
        return f"there is no {error.args[0]!r:.60}" if error.args else "a key is not there"
    if isinstance(error, TypeError):
        return "the types do not fit"
    if isinstance(error, NotJson):
        return "the body is no JSON"
    if isinstance(error, ZeroDivisionError):
        return "division by zero"
    return "the evaluation failed"


@lru_cache(maxsize=1)
def _library() -> Any:
    """The extension module by itself.

    Its package imports a command line on the way, with all that draws terminals: 30 MB.
    """
    package = importlib.machinery.PathFinder.find_spec("cel")
    if package is None or package.submodule_search_locations is None:
        raise ExpressionError("expressions need the package common-expression-language")
    found = importlib.machinery.PathFinder.find_spec("cel.cel", package.submodule_search_locations)
    if found is None or found.loader is None:
        raise ExpressionError("expressions need the package common-expression-language")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
