"""Who is calling, and whether they may: identities that prove it, and the `auth` policy that asks.

`identity.py` is the contract of an identity, `kinds.py` the list of kinds, `policy.py` the policy.
"""
