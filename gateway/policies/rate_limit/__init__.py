"""rate_limit: how often a caller may call a route.

`config` is what users write, `decide` the arithmetic (its twin in the store is
`store/lua/rate_limit.lua`), `keys` says whose bucket a request takes from, `fields` what the caller
is told, `local` counts while the store is away, and `policy` drives them.
"""
