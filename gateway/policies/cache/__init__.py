"""The `cache` policy: answers kept and given again by the rules of RFC 9111.

`directives.py` reads fields, `rules.py` decides, both without state. `memory.py` and `tier.py` keep
what is stored, `flight.py` lets requests wait for one another, `policy.py` puts it together.
"""

from typing import Final

KEY: Final = ("cache",)
"""The key of what all cached routes share, among the long-lived objects."""
