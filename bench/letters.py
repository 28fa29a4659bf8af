"""Two hundred thousand dead letters: how long a list takes, what a replay does in a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from typing import Any
from urllib.parse import urlencode

from bench import processes
from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.peers.peer import Job, serving
from bench.report import Row, at_most, not_judged, reported
from bench.session import Session
from bench.store import running_store

COUNT = int(os.environ.get("BENCH_LETTERS") or 200_000)
LIST = f"{COUNT:,} dead letters: list with a filter, over the admin API"
LIST_S = 1.0
EXPRESSION = "the same: counted by an expression over the body"
REPLAY = "the same: replayed, half of them, then as many as are left"
_MOST = "1000"


def measure(session: Session) -> list[Row]:
    """Fill, list, count, replay."""
    if reason := session.missing():
        return [not_judged(LIST, f"<= {LIST_S:g} s", reason)]
    with running_store(session.work / "store", session.cores.load) as (_, path):
        command = [sys.executable, "-m", "bench.filling", str(path), "events", "second"]
        subprocess.run([*command, str(COUNT), "dead"], check=True, timeout=3600)
        # The target is away, so that what is replayed stays in the queue and costs nothing more.
        peer = lockgate.peer(
            Setup(events=f"unix://{path}", second=processes.free_port(), deliver=False),
            "lockgate-letters",
        )
        with (
            session.upstream() as upstream,
            serving(peer, upstream, session.work, session.cores.proxy) as (_, job),
        ):
            lists = [_walk(job, {"reason": "expired", "limit": _MOST}) for _ in range(5)]
            found = {len(letters) for _, letters in lists}
            seconds = sorted(took for took, _ in lists)
            began = time.monotonic()
            counted = _count(job, "body.total > 100.0 && letter.reason == 'permanent'")
            by_expression = time.monotonic() - began
            replayed, rate = _replay(job)
    assert found == {COUNT // 1000}, found
    assert counted == COUNT - COUNT // 1000, counted
    assert replayed == COUNT, replayed
    return [
        at_most(LIST, seconds[2], LIST_S, " s", seconds=seconds),
        reported(EXPRESSION, f"{by_expression:.1f} s"),
        reported(REPLAY, f"{rate:,.0f} a second"),
    ]


def _walk(job: Job, params: dict[str, str]) -> tuple[float, list[Any]]:
    began, letters, cursor = time.monotonic(), list[Any](), ""
    while True:
        page = _get(job, {**params, "cursor": cursor})
        letters += page["letters"]
        cursor = page["cursor"]
        if not cursor:
            return time.monotonic() - began, letters


def _count(job: Job, where: str) -> int:
    total, cursor = 0, ""
    while True:
        page = _get(job, {"where": where, "count": "true", "limit": "0", "cursor": cursor})
        total += page["matched"]
        cursor = page["cursor"]
        if not cursor:
            return total


def _replay(job: Job) -> tuple[int, float]:
    """Stop half-way, forget where that was, and go on: what was sent is not sent again."""
    began, replayed, cursor = time.monotonic(), 0, ""
    interrupted = False
    while True:
        done = _post(job, {"all": True, "limit": 500, "cursor": cursor})
        replayed += done["replayed"]
        cursor = done["cursor"]
        if replayed >= COUNT // 2 and not interrupted:
            interrupted, cursor = True, ""
        elif not cursor:
            return replayed, replayed / (time.monotonic() - began)


def _get(job: Job, params: dict[str, str]) -> dict[str, Any]:
    return _ask(job, f"?{urlencode(params)}", None)


def _post(job: Job, order: dict[str, Any]) -> dict[str, Any]:
    return _ask(job, "/replay", json.dumps(order).encode())


def _ask(job: Job, what: str, body: bytes | None) -> dict[str, Any]:
    url = f"http://127.0.0.1:{lockgate.admin_port(job)}/api/v1/delivery/letters{what}"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found
