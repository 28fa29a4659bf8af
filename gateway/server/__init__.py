"""The front door: an HTTP/1.1 protocol for uvicorn, listeners, TLS, and the processes around them.

It knows ASGI and bytes, nothing of routes, policies or upstreams.
"""
