"""hedge: a read that is slow gets a second attempt elsewhere, and the first good answer wins."""
