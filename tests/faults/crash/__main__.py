"""The long form: `python -m tests.faults.crash --rounds 30 [--seed N] [--embedded]`."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from time import monotonic

from tests.faults.crash.loop import Plan, Round, run

_HEAD = f"{'round':>5} {'events':>6} {'asked':>6} {'deliveries':>10} {'repeats':>7} {'late':>4}"
_HEAD += f" {'drained':>8} {'seconds':>8}  killed"


def _line(found: Round) -> str:
    return (
        f"{found.number:>5} {found.accepted:>6} {found.asked:>6} {found.deliveries:>10} "
        f"{found.repeats:>7} {found.late:>4} {found.drained_in:>6.1f} s {found.seconds:>6.1f} s  "
        f"{', '.join(found.killed)}"
    )


def main() -> int:
    """0 if nothing was lost, doubled or out of order."""
    parser = argparse.ArgumentParser(
        description="Kill processes under load; prove nothing is lost."
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--kills", type=int, default=3, help="in each round")
    parser.add_argument("--load", type=float, default=3.0, help="seconds in each round")
    parser.add_argument("--senders", type=int, default=12)
    parser.add_argument("--pause", type=float, default=0.05, help="between events of a sender, s")
    parser.add_argument("--embedded", action="store_true", help="one gateway with its own store")
    parser.add_argument("--gentle", type=float, default=0.0, help="share of TERM, not KILL")
    options = parser.parse_args()
    plan = Plan(**vars(options))
    print(f"seed {plan.seed}\n{_HEAD}", flush=True)
    began = monotonic()
    rounds = asyncio.run(run(plan, lambda found: print(_line(found), flush=True)))
    kills = sum(len(each.killed) for each in rounds)
    events, repeats = sum(each.accepted for each in rounds), sum(each.repeats for each in rounds)
    print(
        f"\n{len(rounds)} rounds, {kills} kills, {events} events accepted, {repeats} repeated "
        f"deliveries, {monotonic() - began:.0f} s"
    )
    for fault in rounds[-1].faults[:50]:
        print(f"FAULT {fault}")
    return 1 if rounds[-1].faults else 0


if __name__ == "__main__":
    sys.exit(main())
