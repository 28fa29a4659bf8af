"""retry: failed attempts are made again, where that can't do anything twice and does not bury."""
