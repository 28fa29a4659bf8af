"""mirror: another upstream gets copies of requests; see docs/policies/mirror.md."""
