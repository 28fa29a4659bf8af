"""HTTP/1.1 as bytes in, values out (RFC 9112): no sockets, no clock, no tasks.

Rules of this package: it decides what a message *means*, and it accepts a message only if every
other parser would read it the same way. The server protocol and the upstream connection both use
it, so that what one side accepts the other can forward. It knows nothing of routes or policies.
"""
