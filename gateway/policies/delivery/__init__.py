"""delivery: a route whose requests are kept first, answered 202, and delivered then."""
