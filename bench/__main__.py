"""The command: `python -m bench [--only throughput,idle] [--peers .venv-bench]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench import (
    backlog,
    bodies,
    cached,
    events,
    idle,
    letters,
    limits,
    micro,
    mirrored,
    reloads,
    report,
    resilience,
    startup,
    throughput,
)
from bench.report import Row
from bench.session import Session

HERE = Path(__file__).parent
PARTS: dict[str, Callable[[Session], list[Row]]] = {
    "throughput": throughput.compare,
    "routes": throughput.many_routes,
    "cache": cached.measure,
    "bodies": bodies.measure,
    "idle": idle.measure,
    "start": startup.measure,
    "workers": throughput.workers,
    "reloads": reloads.measure,
    "limits": limits.measure,
    "resilience": resilience.measure,
    "mirror": mirrored.measure,
    "events": events.measure,
    "backlog": backlog.measure,
    "letters": letters.measure,
    "micro": micro.measure,
}


def arguments(argv: list[str]) -> argparse.Namespace:
    """What is to be measured, and with which peers."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; all of them"
    )
    parser.add_argument("--only", default="", help="the same, separated by commas")
    parser.add_argument(
        "--peers", type=Path, default=Path(".venv-bench"), help="where peers are installed"
    )
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latest.json", dest="out")
    options = parser.parse_args(argv)
    options.parts += [part for part in options.only.split(",") if part]
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


def main() -> int:
    """0 if nothing that was judged missed its mark, else 1."""
    options = arguments(sys.argv[1:])
    session = Session.begin(HERE.resolve() / "results" / "work", options.peers.absolute())
    versions = {peer.name: peer.version or peer.missing for peer in session.peers.values()}
    for name, version in versions.items():
        session.say(f"{name}: {version}")
    rows: list[Row] = []
    for part in options.parts or PARTS:
        session.say(f"\n{part}")
        try:
            rows += PARTS[part](session)
        except (RuntimeError, OSError, ValueError) as error:
            # One part that breaks must not cost the figures of the others.
            session.say(f"  failed: {error}")
            rows.append(Row(part, "-", f"failed: {str(error).splitlines()[0][:80]}", "MISSED"))
    session.say(f"\n{report.table(rows)}\n")
    report.write(options.out, rows, versions)
    session.say(f"Written to {options.out}")
    return 1 if any(row.verdict == "MISSED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
