"""The admin application: health, metrics, and the JSON API, on a listener of its own."""
