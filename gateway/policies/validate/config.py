"""What `validate:` may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gateway.config.base import Model, RefusingPolicyConfig
from gateway.config.types import Name, refuse

SchemaOrModel = Annotated[
    dict[str, Any] | bool,
    Field(
        description="A JSON Schema (2020-12) in place, or {model: name}.",
        examples=[{"model": "order"}, {"type": "object", "required": ["id"]}],
    ),
]


class RequestRules(Model):
    """What requests must be."""

    body: SchemaOrModel | None = Field(
        default=None, description="The schema of the body, which must be there and be JSON."
    )
    query: SchemaOrModel | None = Field(
        default=None,
        description="The schema of the query, as an object of its parameters: "
        "{properties: {page: {type: integer}}}.",
    )
    headers: SchemaOrModel | None = Field(
        default=None,
        description="The schema of the header fields that it names, as an object of them.",
    )
    path: SchemaOrModel | None = Field(
        default=None, description="The schema of the path's parameters, as an object of them."
    )


class ResponseRules(Model):
    """What answers must be."""

    body: SchemaOrModel | None = Field(
        default=None,
        description="The schema of JSON answers of status 2xx. With a contract, left out: the "
        "contract says it.",
    )
    mode: Literal["enforce", "report"] | None = Field(
        default=None,
        description="What becomes of answers that are not so: enforce answers 502, report lets "
        "them pass, and counts and logs them. The policy's own mode if left out.",
    )


class ValidateConfig(RefusingPolicyConfig):
    """Holds requests and answers to a contract, or to schemas of the route's own."""

    contract: Name | None = Field(
        default=None, description="The contract, by its name under contracts."
    )
    request: RequestRules | None = Field(
        default=None,
        description="Schemas for requests, in place of a contract. With a contract, null leaves "
        "requests alone.",
    )
    response: ResponseRules | None = Field(
        default=None,
        description="A schema for answers, in place of a contract. With a contract, its mode, or "
        "null to leave answers alone.",
    )
    on_invalid: Literal["reject", "quarantine"] = Field(
        default="reject",
        description="What becomes of invalid requests: reject refuses them; quarantine, on an "
        "asynchronous route, keeps them as dead letters and answers 202.",
    )

    @property
    def checks_requests(self) -> bool:
        """Whether requests are looked at."""
        return self.request is not None or self._by_contract("request")

    @property
    def checks_responses(self) -> bool:
        """Whether answers are looked at."""
        return self.response is not None or self._by_contract("response")

    @property
    def response_mode(self) -> Literal["enforce", "report"]:
        """The mode for answers."""
        return (self.response.mode if self.response is not None else None) or self.mode

    def _by_contract(self, key: str) -> bool:
        return self.contract is not None and key not in self.model_fields_set

    @model_validator(mode="after")
    def _one_source(self) -> ValidateConfig:
        if self.contract is not None and not (self.checks_requests or self.checks_responses):
            raise refuse("validate", "request and response are both null: nothing is checked")
        if self.contract is None:
            if self.request is None and (self.response is None or self.response.body is None):
                raise refuse("validate", "needs contract, request or response.body")
        elif self.request is not None:
            raise refuse("validate", "contract and request can't both be given")
        elif self.response is not None and self.response.body is not None:
            raise refuse("validate", "contract and response.body can't both be given")
        return self
