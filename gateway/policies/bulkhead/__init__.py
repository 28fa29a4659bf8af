"""bulkhead: an upstream gets only so many requests at once; the others wait, briefly, in order."""

from gateway.policies.bulkhead.config import BulkheadConfig
from gateway.policies.bulkhead.policy import BulkheadPolicy

__all__ = ["BulkheadConfig", "BulkheadPolicy"]
