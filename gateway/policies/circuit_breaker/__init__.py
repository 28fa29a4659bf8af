"""circuit_breaker: an upstream that fails is left alone until it has had time to recover."""

from gateway.policies.circuit_breaker.config import CircuitBreakerConfig
from gateway.policies.circuit_breaker.policy import CircuitBreakerPolicy

__all__ = ["CircuitBreakerConfig", "CircuitBreakerPolicy"]
