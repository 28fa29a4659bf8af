"""upstream_auth: the gateway's own credentials for an upstream (`upstreams.<name>.auth`).

`config.py` is what stands under `auth`; `machine.py` says when a token is good, fetched anew, or
not tried again yet; `endpoint.py` speaks the token endpoint's language; `source.py` keeps one token
for all who share the credentials; `policy.py` writes the field and answers a 401 of the upstream.
"""
