"""The `cache` policy: answers kept and given again by the rules of RFC 9111.

`directives.py` reads fields, `rules.py` decides, both without state. `memory.py` and `tier.py` keep
what is stored, `flight.py` lets requests wait for one another, `policy.py` puts it together.
"""
