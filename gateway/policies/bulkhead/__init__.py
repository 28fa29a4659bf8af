"""bulkhead: an upstream gets only so many requests at once; the others wait, briefly, in order."""

from gateway.policies.bulkhead.policy import BulkheadConfig, BulkheadPolicy

__all__ = ["BulkheadConfig", "BulkheadPolicy"]
