"""Flags: switches that routes and policies ask; see docs/flags.md."""
