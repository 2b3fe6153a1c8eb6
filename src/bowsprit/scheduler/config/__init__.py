"""KubeSchedulerConfiguration: strict decoding, defaults, conversion of old versions, validation with upstream's messages."""

from __future__ import annotations

from bowsprit.machinery.fielderrors import aggregate
from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.config.decode import decode_v1, parse_document
from bowsprit.scheduler.config.defaults import set_defaults
from bowsprit.scheduler.config.errors import ConfigError
from bowsprit.scheduler.config.validation import validate
from bowsprit.scheduler.config.versions import OLD, convert
from bowsprit.scheduler.featuregates import gates_of

__all__ = ["ConfigError", "check", "default_config", "load"]


def default_config() -> Obj:
    """What a scheduler without a configuration file runs with."""
    return set_defaults({})


def read(text: str, gates: dict[str, bool] | None = None) -> tuple[Obj, list[str]]:
    """Decode a document and fill in its defaults, without validating it. Raises ConfigError."""
    document, repeated = parse_document(text)
    warnings: list[str] = []
    if document["apiVersion"] in OLD and document["kind"] == "KubeSchedulerConfiguration":
        document, warnings = convert(document)
    return set_defaults(decode_v1(document, repeated), gates), warnings


def check(config: Obj, gates: dict[str, bool] | None = None) -> None:
    """Validate a defaulted configuration. Raises ConfigError with all problems."""
    errors = validate(config, gates_of(gates or {}))
    if errors:
        raise ConfigError(aggregate(errors))


def load(text: str, gates: dict[str, bool] | None = None) -> tuple[Obj, list[str]]:
    """A configuration from YAML or JSON text: (defaulted v1 configuration, warnings). Raises ConfigError."""
    config, warnings = read(text, gates)
    check(config, gates)
    return config, warnings
