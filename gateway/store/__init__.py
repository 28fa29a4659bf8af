"""The store: everything that gateways share or must not lose, in the Redis protocol.

`opening.open_store` makes a `Store` from a configuration. Only this package knows that the store is
Redis or Valkey, and only this package imports `redis` and `hiredis`.
"""
