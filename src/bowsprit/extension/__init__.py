"""Extension API servers written in Python.

Law: runs behind any kube-apiserver; reaches the core API only through the client. An author imports from here and from
nowhere deeper; what he declares on an `App` is translated into the generic library's terms and served by it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bowsprit.apiserver.request import RequestContext as RequestContext
    from bowsprit.extension.app import App as App
    from bowsprit.extension.errors import AlreadyExists as AlreadyExists
    from bowsprit.extension.errors import Conflict as Conflict
    from bowsprit.extension.errors import ExtensionError as ExtensionError
    from bowsprit.extension.errors import Forbidden as Forbidden
    from bowsprit.extension.errors import Invalid as Invalid
    from bowsprit.extension.errors import NotFound as NotFound
    from bowsprit.extension.errors import Unavailable as Unavailable
    from bowsprit.extension.kind import Kind as Kind
    from bowsprit.extension.kind import Model as Model
    from bowsprit.extension.kind import ObjectMeta as ObjectMeta
    from bowsprit.extension.markers import Atomic as Atomic
    from bowsprit.extension.markers import Column as Column
    from bowsprit.extension.markers import IntOrString as IntOrString
    from bowsprit.extension.markers import ListMap as ListMap
    from bowsprit.extension.markers import ListSet as ListSet
    from bowsprit.extension.markers import Quantity as Quantity
    from bowsprit.extension.markers import Rule as Rule
    from bowsprit.extension.markers import Scale as Scale
    from bowsprit.extension.storage import memory as memory
    from bowsprit.extension.storage import sqlite as sqlite
    from bowsprit.extension.stream import Stream as Stream

_HOMES = {
    "app": ("App",),
    "errors": ("AlreadyExists", "Conflict", "ExtensionError", "Forbidden", "Invalid", "NotFound", "Unavailable"),
    "kind": ("Kind", "Model", "ObjectMeta"),
    "markers": ("Atomic", "Column", "IntOrString", "ListMap", "ListSet", "Quantity", "Rule", "Scale"),
    "storage": ("memory", "sqlite"),
    "stream": ("Stream",),
}
_HOME = {name: f"bowsprit.extension.{module}" for module, names in _HOMES.items() for name in names}
_HOME["RequestContext"] = "bowsprit.apiserver.request"

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    """Imports on first use: the command line stays fast."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
