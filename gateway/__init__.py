"""Lockgate: an API gateway that gives every call what robust integration needs."""

# First of all: it decides where every other module of this package is loaded from.
from gateway import compiled as compiled

__version__ = "0.1.0"
