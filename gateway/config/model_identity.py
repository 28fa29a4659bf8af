"""The `identities:` section: who may be calling. Routes name them under `auth`.

Here stands what the types have in common, and which types there are; each is described where it
belongs: tokens in `model_token.py`, keys, certificates and signatures in `model_key.py`.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from gateway.config.base import Model
from gateway.config.model_key import ApiKeyIdentity, MtlsIdentity, WebhookIdentity
from gateway.config.model_token import IntrospectionIdentity, JwtIdentity

IdentityConfig = Annotated[
    JwtIdentity | IntrospectionIdentity | ApiKeyIdentity | MtlsIdentity | WebhookIdentity,
    Field(discriminator="type"),
]

IDENTITY_TYPES: Final[dict[str, type[Model]]] = {
    "jwt": JwtIdentity,
    "introspection": IntrospectionIdentity,
    "api_key": ApiKeyIdentity,
    "mtls": MtlsIdentity,
    "webhook": WebhookIdentity,
}
