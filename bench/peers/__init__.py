"""The peers: how each proxy is set up for the same work."""
