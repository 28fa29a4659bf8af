"""circuit_breaker: an upstream that fails is left alone until it has had time to recover."""
