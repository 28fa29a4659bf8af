"""The way to the services behind the gateway: target choice, DNS, TLS, pools of connections.

`Upstream` is what the rest of the gateway uses; `headers` holds the rules for the fields that pass
through. Nothing here knows routes or policies, and nothing here sets the exchange's deadline: a
deadline arrives as the cancellation of `Upstream.send`.
"""

from gateway.upstream.client import Upstream

__all__ = ["Upstream"]
