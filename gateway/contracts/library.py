"""Every model and contract of one configuration, compiled: what policies ask for by name.

Reading and compiling take time, so they are done in a thread; what could not be done is in
`errors`. A library lives as long as what it was made of stays the same, reloads or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from gateway.config.model_content import ContractConfig, ModelConfig
from gateway.contracts.contract import Contract
from gateway.contracts.files import DocumentError, Files
from gateway.contracts.models import Models
from gateway.contracts.openapi import import_document
from gateway.errors import ConfigError


class Library:
    """Models, contracts and schemas of routes. `contents` are the files, by path, as they were.

    `warnings` are pairs of a key's path and a message.
    """

    def __init__(
        self,
        models: Mapping[str, ModelConfig],
        contracts: Mapping[str, ContractConfig],
        base_dir: Path,
        contents: Mapping[str, bytes] | None = None,
    ) -> None:
        files = Files(base_dir, contents)
        self.models = Models(models, files, base_dir)
        self.contracts: dict[str, Contract] = {}
        self.errors: list[ConfigError] = list(self.models.errors)
        self.warnings: list[tuple[str, str]] = []
        for name, config in contracts.items():
            path = f"contracts.{name}.openapi"
            try:
                contract = import_document(name, config.openapi, files, self.models)
            except DocumentError as error:
                self.errors.append(ConfigError(str(error), path))
            else:
                self.contracts[name] = contract
                self.warnings += [(path, warning) for warning in contract.warnings]
        self.contents = files.contents
        self.digest = digest(models, contracts, base_dir, self.contents)
        self._files = files

    @property
    def files(self) -> list[Path]:
        """Every file that was read, those that others refer to included."""
        return [Path(name) for name in self._files.contents]


def digest(
    models: Mapping[str, ModelConfig],
    contracts: Mapping[str, ContractConfig],
    base_dir: Path,
    contents: Mapping[str, bytes],
) -> str:
    """What a library is made of, as a text that changes with it."""
    found = hashlib.sha256(str(base_dir).encode())
    for name, each in [*sorted(models.items()), *sorted(contracts.items())]:
        # A length in front keeps two neighbours from being read as one.
        for part in (name.encode(), each.model_dump_json(by_alias=True).encode()):
            found.update(b"%d " % len(part) + part)
    for name, data in sorted(contents.items()):
        found.update(b"%d %d " % (len(name), len(data)) + name.encode())
        found.update(data)
    return found.hexdigest()
