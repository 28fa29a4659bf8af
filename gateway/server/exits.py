"""The exit codes of every Lockgate process, so that a service manager can tell why it ended."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """0 also follows a TERM that was drained; 2 is click's; 78 is EX_CONFIG of sysexits.h."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    STARTUP = 3
    CONFIG = 78


class StartupError(Exception):
    """The process can't start for a reason outside the configuration, such as a port in use.

    The message is one line for the operator.
    """
