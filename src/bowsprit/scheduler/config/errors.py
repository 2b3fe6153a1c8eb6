"""What can be wrong with a configuration."""

from __future__ import annotations


class ConfigError(ValueError):
    """A document that kube-scheduler would refuse, with its message."""
