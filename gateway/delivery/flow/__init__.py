"""Flows: steps that are taken in order, each durable, and undone backwards if one of them fails."""
