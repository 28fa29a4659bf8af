"""From YAML text to the frozen models that the rest of the gateway is built from.

`loader.load` is the one way in. Nothing here opens a socket, knows a policy, or starts anything.
"""
