"""What could stop all requests of a process at once, kept short: collections, releases, threads.

The garbage collector finds cycles, and the gateway makes none: exchanges, connections, and a
configuration from its loading to its retirement go away with their last reference
(tests/test_pauses.py holds them to it). But each of its runs walks what is alive, above all the
models and chains of every route. Left alone, that costs 15 to 18 % of the CPU of a request, and a
third of a start with 10,000 routes. Nothing else in the gateway touches the collector.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import Final

# Net new objects for a run over the young ones, young runs for one over the middle-aged, and those
# for one over all that is not set aside: 4 ms, 12 ms, and hardly ever. The middle one decides how
# long requests wait while a reload makes a million objects, so it is low; the last one is so high
# that such a reload does not reach it.
_THRESHOLDS: Final = (10_000, 2, 100)
# With so many routes a collection still ends within about 40 ms.
_FEW_ROUTES: Final = 500
# Parts of a configuration, of about a dozen objects each, that are let go of within a millisecond.
_SLICE: Final = 200
# How long a thread that loads a configuration or writes metrics may keep the interpreter while the
# event loop waits for it. Python's 5 ms are what a request then waits, several times over.
_TURN_S: Final = 0.001


def prepare_process() -> None:
    """Called once, before a process that will serve loads anything.

    Switches the collector off until `settle`: all that a start makes is kept anyway.
    """
    gc.disable()
    sys.setswitchinterval(_TURN_S)


def settle(routes: int) -> None:
    """Set aside all that is alive, so that the collector never walks it again.

    Called after each swap of configurations; `routes` says how large the new one is. What is set
    aside still goes with its last reference. Cycles, which only a plugin may have made, are looked
    for first if there are few objects; with thousands of routes that would stop requests for longer
    than such a leak is worth.
    """
    if routes <= _FEW_ROUTES:
        gc.unfreeze()
        gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()


async def let_go(parts: list[object]) -> None:
    """Drop what may be the last references to many objects, with turns of the loop in between.

    The configuration of 10,000 routes is a million objects; dropped at once, requests would wait
    for a tenth of a second. `parts` is emptied.
    """
    while parts:
        del parts[-_SLICE:]
        await asyncio.sleep(0)
