"""retry: failed attempts are made again, where that can't do anything twice and does not bury."""

from gateway.policies.retry.config import RetryConfig
from gateway.policies.retry.policy import RetryPolicy

__all__ = ["RetryConfig", "RetryPolicy"]
