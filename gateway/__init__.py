"""Lockgate: an API gateway that gives every call what robust integration needs."""

__version__ = "0.1.0"
