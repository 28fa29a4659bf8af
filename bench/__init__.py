"""Lockgate measured side by side with other proxies: `make bench`, or `python -m bench`.

Every figure comes from one run on one machine: the proxy pinned to one core, load generator and
upstream on another. Nothing in `gateway/` may import this package.
"""
