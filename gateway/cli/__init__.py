"""The command `lockgate`: one module a command, imported only when that command runs.

Commands parse, call what lies below, and print. Nothing here decides anything about traffic.
"""
