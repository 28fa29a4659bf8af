"""The field that carries the gateway's credentials, on each request to the upstream.

It replaces the field of that name that the client sent, in every spelling: what the client proved
itself with is for the gateway, and must not reach a service that trusts the gateway.

A token that the upstream answers with 401 is fetched anew, and the request is sent once more if its
body was kept whole: refusing credentials, an upstream has done nothing yet (RFC 9110 section
15.5.2), so that is safe for every method. What streamed can't be sent again: its 401 goes to the
client, and the next request has the new token.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from gateway.errors import ConfigError
from gateway.message import Exchange, Handler, Headers, Response
from gateway.policies.base import Around, BuildContext, Stage
from gateway.policies.upstream_auth.config import (
    BasicCredentials,
    BearerCredentials,
    ClientCredentials,
    HeaderCredentials,
    UpstreamAuthConfig,
)
from gateway.policies.upstream_auth.source import TokenSource

_AUTHORIZATION = b"authorization"
