"""The page at `/`: what runs, and where everything else is. No scripts, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from gateway.admin.control import ConfigInfo, Health, ReloadInfo

_ENDPOINTS: Final = (
    ("GET", "/livez", "Is the process alive? 200 or 503."),
    ("GET", "/readyz", "Does it take new requests? 503 while it drains."),
    ("GET", "/healthz?verbose", "Both, with every check."),
    ("GET", "/metrics", "Prometheus or OpenMetrics text."),
    ("GET", "/api/v1/routes", "Routes with match, chain and upstream; one by /routes/{name}."),
    ("GET", "/api/v1/upstreams", "Upstreams with targets and connections."),
    ("POST", "/api/v1/upstreams/{name}/circuit_breaker", "Open or close it, or leave it alone."),
    ("GET", "/api/v1/mirrors", "The last differences that mirrors found."),
    ("GET", "/api/v1/flags", "Flags; one by /flags/{name}, changed by PUT, taken back by DELETE."),
    ("GET", "/api/v1/delivery/queues", "How full the queues of asynchronous routes are."),
    ("GET", "/api/v1/delivery/letters", "Dead letters; one event by /letters/{event}."),
    ("GET", "/api/v1/config", "Generation, files, the last reload, every worker."),
    ("GET", "/api/v1/explain?method=GET&url=/", "What would happen to a request."),
    ("POST", "/api/v1/reload", "Load the configuration again."),
)

STYLE: Final = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #8884 }
code { font-size: .95em }
.bad { color: #b00020; font-weight: 600 }
:root { color-scheme: light dark }
"""


def index_page(version: str, config: ConfigInfo, health: Health) -> str:
    """The whole page."""
    state = "takes requests" if health.ready else '<span class="bad">takes no requests</span>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Lockgate admin</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<h1>Lockgate {escape(version)}</h1>
<p>Generation {config.generation} {state}. Fingerprint
<code>{escape(config.fingerprint[:12])}</code>, {len(config.files)} file(s).</p>
{_last_reload(config.last_reload)}
<table>
<thead><tr><th>Method</th><th>Path</th><th>What it answers</th></tr></thead>
<tbody>
{_rows(_ENDPOINTS)}
</tbody>
</table>
</body>
</html>
"""


def _last_reload(last: ReloadInfo | None) -> str:
    if last is None:
        return ""
    if last.ok:
        return "<p>The last reload went well.</p>"
    errors = "".join(
        f"<li><code>{escape(each.file)}:{each.line}:{each.column}</code> "
        f"{escape(each.path)}: {escape(each.message)}</li>"
        for each in last.errors
    )
    return f'<p class="bad">The last reload was refused:</p><ul>{errors}</ul>'


def _rows(endpoints: Sequence[tuple[str, str, str]]) -> str:
    rows = []
    for method, path, what in endpoints:
        shown = f"<code>{escape(path)}</code>"
        if method == "GET":
            shown = f'<a href="{escape(path)}">{shown}</a>'
        rows.append(f"<tr><td>{method}</td><td>{shown}</td><td>{escape(what)}</td></tr>")
    return "\n".join(rows)
