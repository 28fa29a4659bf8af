"""mirror: another upstream gets copies of requests; see docs/policies/mirror.md."""

from typing import Final

KEY: Final = "mirror"
"""What the keys of mirrors begin with, among the long-lived objects."""
