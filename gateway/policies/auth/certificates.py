"""mtls: the client certificate that the listener verified, told by its names.

The listener checks that an authority of `server.tls.client_ca` signed it and that the client holds
its key; here it is decided whether it is one of those that are meant. What a proxy in front says
about certificates (X-Forwarded-Client-Cert and the like) is never believed: TLS has to end here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from gateway.errors import INVALID_CREDENTIALS, NOT_PERMITTED, ConfigError, Rejection
from gateway.message import Exchange, Principal
from gateway.policies.auth.identity import Foreign, Identity, Verdict
from gateway.policies.auth.kinds import directory
from gateway.policies.auth.names import Matcher, compile_pattern, read_names

if TYPE_CHECKING:
    from gateway.certificate import ClientCertificate
    from gateway.clock import Clock
    from gateway.config.model_key import MtlsIdentity
    from gateway.policies.base import BuildContext

# Certificates that are remembered: more than there are connections with their own.
_REMEMBERED: Final = 10_000


class Certificates(Identity):
    """Proves a consumer by its certificate. Each certificate is read once, not for each request."""

    def __init__(
        self, name: str, patterns: list[Matcher], tiers: Mapping[str, str], clock: Clock
    ) -> None:
        self.name = name
        self._patterns = patterns
        self._tiers = tiers
        self._now = clock.wall
        self._known: dict[bytes, tuple[float, Verdict]] = {}

    def authenticate(self, exchange: Exchange) -> Verdict:
        """Judge the certificate of the request's connection."""
        certificate = exchange.request.certificate
        if certificate is None:
            return None
        found = self._known.get(certificate.der)
        not_after, verdict = self._read(certificate) if found is None else found
        if self._now() >= not_after and not isinstance(verdict, Rejection):
            # The handshake saw it valid; a connection may outlive it.
            return Rejection(INVALID_CREDENTIALS, "the client certificate has expired")
        return verdict

    def _read(self, certificate: ClientCertificate) -> tuple[float, Verdict]:
        found = self._decide(certificate.der)
        if len(self._known) >= _REMEMBERED:
            # Started over: those who call now matter more than those who once did.
            self._known.clear()
        self._known[certificate.der] = found
        return found

    def _decide(self, der: bytes) -> tuple[float, Verdict]:
        try:
            names = read_names(der)
        except ValueError:
            # OpenSSL takes a few encodings that are not DER.
            return 0.0, Rejection(INVALID_CREDENTIALS, "the client certificate can't be read")
        for pattern in self._patterns:
            consumer = pattern(names)
            if consumer:
                tier = self._tiers.get(consumer, "")
                return names.not_after, Principal(
                    consumer, names.claims, identity=self.name, tier=tier
                )
        detail = "the client certificate is not one of those that may call"
        return names.not_after, Foreign(NOT_PERMITTED, detail)


def build(name: str, config: MtlsIdentity, context: BuildContext) -> Certificates:
    """Read the patterns. Raises ConfigError, also if no certificate would ever be asked for."""
    tls = context.server.tls
    if tls is None or tls.client_cert == "none":
        raise ConfigError(
            "no client certificate is ever asked for; set server.tls.client_cert to optional or "
            "required"
        )
    patterns = []
    for position, text in enumerate(config.subjects):
        try:
            patterns.append(compile_pattern(text))
        except ValueError as error:
            raise ConfigError(str(error), f"subjects[{position}]") from None
    return Certificates(name, patterns, directory(context).tiers, context.clock)
