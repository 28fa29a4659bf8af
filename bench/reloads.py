"""Fifty reloads under load, one of them broken: nothing may fail, and the broken one must show."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request

from bench import load
from bench.peers import lockgate
from bench.peers.lockgate import Setup
from bench.peers.peer import Job, serving
from bench.processes import Child
from bench.report import Row, not_judged
from bench.session import Session

RELOADS = 50
BROKEN = 25
LOAD_AT_MOST_S = 120
ONE_WITHIN_S = 10.0
WHAT = f"{RELOADS} reloads under load, one broken"
MUST = "no request fails, the broken one is refused"


def measure(session: Session) -> list[Row]:
    """Change the file and send SIGHUP, again and again, while wrk keeps 32 connections busy."""
    if reason := session.missing():
        return [not_judged(WHAT, MUST, reason)]
    peer = lockgate.peer(Setup(watch=False))
    with (
        session.upstream() as upstream,
        serving(peer, upstream, session.work, session.cores.proxy) as (child, job),
    ):
        busy = load.begin(job.port, LOAD_AT_MOST_S, session.cores.load, job.work / "wrk.log")
        try:
            time.sleep(1)
            before = _results(job)
            refused = sum(_reload(child, job, number) for number in range(1, RELOADS + 1))
            after = _results(job)
        finally:
            busy.process.send_signal(signal.SIGINT)  # wrk then prints its figures
            busy.process.wait(30)
        seen = load.parse(busy.log.read_text())
    results = {name: after[name] - before.get(name, 0) for name in after}
    good = seen.failed == 0 and refused == 1 and sum(results.values()) == RELOADS
    figure = (
        f"{seen.failed} of {seen.requests:,} requests failed; {refused:.0f} refused; "
        + ", ".join(f"{name} {count:.0f}" for name, count in sorted(results.items()))
    )
    session.say(f"  {figure}")
    return [Row(WHAT, MUST, figure, "ok" if good else "MISSED", {"results": results})]


def _reload(child: Child, job: Job, number: int) -> bool:
    """One reload, waited for; whether it was refused."""
    setup = Setup(timeout=f"{10 + number}s", watch=False)
    text = lockgate.config_text(job, setup, lockgate.admin_port(job))
    if number == BROKEN:
        text = text.replace("upstream: bench", "upstream: nowhere")
    lockgate.config_file(job).write_text(text)
    before, generation = _results(job), _generation(job)
    os.kill(child.pid, signal.SIGHUP)
    deadline = time.monotonic() + ONE_WITHIN_S
    while _results(job) == before:
        if time.monotonic() > deadline:
            raise RuntimeError(f"reload {number} did not show in the metrics: {child.last_words()}")
        time.sleep(0.01)
    return _generation(job) == generation


def _results(job: Job) -> dict[str, float]:
    """How many reloads ended how, by the gateway's own count."""
    pattern = r'^gateway_config_reloads_total\{result="([^"]*)"\} (\S+)$'
    return {name: float(count) for name, count in re.findall(pattern, _metrics(job), re.MULTILINE)}


def _generation(job: Job) -> float:
    found = re.search(r"^gateway_config_generation (\S+)$", _metrics(job), re.MULTILINE)
    if found is None:
        raise RuntimeError("the gateway does not show its configuration's generation")
    return float(found[1])


def _metrics(job: Job) -> str:
    url = f"http://127.0.0.1:{lockgate.admin_port(job)}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text
