"""Whether this interpreter can run Lockgate, and how fast it is: milliseconds, or exit code 1.

It is run by whatever `python3` may turn out to be, so it keeps to syntax that old versions read.
"""

import sys
import time

OLDEST = (3, 11)
ROUNDS = 5
CALLS = 50000


def work(number, factor):
    """A call and some arithmetic, which is what the builds of one version differ in."""
    return (number * factor + 1) & 1023


def once():
    """Seconds for one round."""
    counts = {}
    began = time.perf_counter()
    for number in range(CALLS):
        value = work(number, 3)
        counts[value] = counts.get(value, 0) + 1
    return time.perf_counter() - began


def main():
    """Print the best of a few rounds, as milliseconds for a million calls."""
    if sys.version_info < OLDEST:
        return 1
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:  # Debian packages both apart
        return 1
    # The best, because whatever else the machine does can only add to a round.
    print(round(min(once() for _ in range(ROUNDS)) * 1000 * 1000000 / CALLS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
