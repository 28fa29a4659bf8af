"""Which route a request belongs to: the path's one normal form, templates, the compiled table."""
