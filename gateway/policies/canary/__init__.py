"""canary: a share of a route's traffic goes to another upstream; see docs/policies/canary.md."""
