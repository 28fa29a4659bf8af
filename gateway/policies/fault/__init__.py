"""The `fault` policy: trouble made on purpose, to see what callers make of it."""
