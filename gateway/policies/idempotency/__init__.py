"""The `idempotency` policy: a request that is sent twice is carried out once."""
