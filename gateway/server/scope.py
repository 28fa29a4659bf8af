"""The ASGI scope of a request, for applications that ask for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from gateway.server.cycle import Cycle

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


def build_scope(cycle: Cycle) -> dict[str, Any]:
    """An ASGI 3 HTTP scope; the cycle itself stands in its extensions as `lockgate`."""
    head, protocol = cycle.head, cycle.protocol
    shared = protocol.shared
    raw_path, _, query = head.target.partition(b"?")
    path = raw_path.decode("ascii")
    extensions: dict[str, Any] = {"lockgate": cycle, "http.response.trailers": {}}
    if protocol.tls is not None:
        extensions["tls"] = protocol.tls
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": "1.1" if head.minor else "1.0",
        "server": protocol.server,
        "client": protocol.client,
        "scheme": "https" if protocol.secure else "http",
        "method": head.method,
        "root_path": shared.root_path,
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": head.headers,
        "state": shared.app_state.copy(),
        "extensions": extensions,
    }
