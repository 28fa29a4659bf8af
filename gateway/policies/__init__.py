"""Policies: what a user can switch on for a route. See `base.py` for the contract."""
