"""The crash loop: processes are killed at random under load, and what is left is checked.

`python -m tests.faults.crash --rounds 30` runs it at length and prints what it found; a short one
is part of the tests. Everything but the processes that are killed (the upstream, which records what
reaches it, and the senders) lives in the process that runs the loop.
"""
