"""Rules for paths inside volumes and folders."""

from __future__ import annotations

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path


def local_path_errors(target: str, where: Path) -> list[FieldError]:
    """A relative path inside a volume or a folder of the host."""
    errors = [fielderrors.invalid(where, target, "must be a relative path")] if target.startswith("/") else []
    return errors + no_backsteps(target, where)


def no_backsteps(target: str, where: Path) -> list[FieldError]:
    """A path without ``..``."""
    if ".." in target.split("/"):
        return [fielderrors.invalid(where, target, "must not contain '..'")]
    return []
