"""bulkhead: an upstream gets only so many requests at once; the others wait, briefly, in order."""
