"""hedge: a read that is slow gets a second attempt elsewhere, and the first good answer wins."""

from gateway.policies.hedge.config import HedgeConfig
from gateway.policies.hedge.policy import HedgePolicy

__all__ = ["HedgeConfig", "HedgePolicy"]
