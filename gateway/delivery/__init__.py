"""Asynchronous routes: events kept in the store, delivered, repeated, and found again."""
