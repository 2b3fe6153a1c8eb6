"""Calling the author's functions: with models instead of dicts, with failures turned into answers."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Awaitable, Iterator
from contextvars import ContextVar
from typing import Any

from pydantic import ValidationError

from bowsprit.apiserver.registry import Registry
from bowsprit.apiserver.request import RequestContext
from bowsprit.extension.declaration import Declaration
from bowsprit.extension.errors import Invalid, Refusal
from bowsprit.extension.kind import Kind, parse, render
from bowsprit.extension.kindschema import KindSchema
from bowsprit.machinery.errors import internal_error, not_found
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.names import GroupKind, GroupResource
from bowsprit.machinery.objects import Obj

logger = logging.getLogger("bowsprit.extension")

# Set by the strategy when it prepares an object, read by the validation of the same object, in the same task.
REQUEST: ContextVar[RequestContext] = ContextVar("REQUEST")


async def awaited(value: Any) -> Any:
    """The value of a plain function's or a coroutine's call."""
    return await value if isinstance(value, Awaitable) or inspect.isawaitable(value) else value


class Hooks:
    """The functions of one declaration."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.resource = GroupResource(declaration.group, declaration.plural)
        self.group_kind = GroupKind(declaration.group, declaration.kind)
        self.registry: Registry | None = None  # set by the server
        self._schemas: dict[str, KindSchema] = {}
        self._models = {f"{declaration.group}/{each.version}": each.model for each in declaration.versions}

    def model_of(self, obj: Obj) -> type[Kind]:
        """The class of an object, by its apiVersion."""
        return self._models.get(str(obj.get("apiVersion")), self.declaration.hub.model)

    def parse(self, obj: Obj) -> Kind:
        """The object as its class. Raises internal_error for a stored object that no longer fits."""
        try:
            return parse(self.model_of(obj), obj)
        except ValidationError as failure:
            name = (obj.get("metadata") or {}).get("name", "")
            raise internal_error(
                f"{self.resource} {name!r} does not fit its model: {failure.error_count()} errors"
            ) from failure

    def add_schema(self, schema: KindSchema) -> None:
        """The schema of one of the versions."""
        self._schemas[schema.gvk.api_version] = schema

    def fitting(self, obj: Obj) -> Kind | None:
        """The object as its class, None if it does not fit: validation then says why."""
        schema = self._schemas.get(str(obj.get("apiVersion")))
        if schema is not None and schema.shape_errors(obj):
            return None
        try:
            return parse(self.model_of(obj), obj)
        except ValidationError:
            return None

    @contextlib.contextmanager
    def answering(self, name: str) -> Iterator[None]:
        """Refusals become answers about the object called so."""
        try:
            yield
        except Refusal as refusal:
            raise refusal.status(self.resource, self.group_kind, name) from refusal

    async def fetch(self, ctx: RequestContext, name: str) -> Kind:
        """The object that a request names, in the request's version. Raises 404."""
        assert self.registry is not None
        info = ctx.info
        endpoint = self.registry.endpoint(info.group, info.version, info.resource)
        assert endpoint is not None
        collection = endpoint.collection
        if endpoint.resource.open is not None:
            collection = await endpoint.resource.open(ctx, collection)
        item = collection.item(info.namespace, name)
        if item is None:
            raise not_found(self.resource, name)
        return self.parse(collection.from_hub(endpoint.version, collection.decode(item)))

    def log_failure(self, what: str, ctx: RequestContext, failure: Exception) -> None:
        """An author's function failed where no answer can tell."""
        logger.error("%s of %s failed (audit id %s)", what, self.resource, ctx.audit_id, exc_info=failure)

    # -- functions -----------------------------------------------------------------------------------------------------

    def default(self, obj: Obj) -> None:
        """Runs the defaulting functions on an object of any version, in place; one that fits no model is left alone."""
        model = self.model_of(obj)
        functions = self.declaration.defaults.get(model)
        if not functions:
            return
        made = self.fitting(obj)
        if made is None:
            return
        before = render(made)
        for function in functions:
            function(made)
        replace_changed(obj, before, render(made))

    def validation_errors(self, model: type[Kind], new: Kind, old: Obj | None) -> list[FieldError]:
        """What the validation functions say."""
        functions = self.declaration.validations.get(model)
        if not functions:
            return []
        before = self._old(model, old)
        errors: list[FieldError] = []
        for function in functions:
            try:
                errors += _field_errors(function(new, before, REQUEST.get()))
            except Invalid as problem:
                errors.append(problem.error)
            except Refusal as refusal:
                raise refusal.status(self.resource, self.group_kind, new.metadata.name) from refusal
        return errors

    @staticmethod
    def _old(model: type[Kind], old: Obj | None) -> Kind | None:
        """The object before; None too when it was stored under other rules and no longer fits."""
        try:
            return parse(model, old) if old is not None else None
        except ValidationError:
            return None


def replace_changed(obj: Obj, before: Obj, after: Obj) -> None:
    """Takes over what a function changed of an object's model, and leaves the rest as it was written."""
    for key in [key for key in before if key not in after]:
        obj.pop(key, None)
    for key, value in after.items():
        if key not in before or before[key] != value:
            there = obj.get(key)
            if isinstance(value, dict) and isinstance(before.get(key), dict) and isinstance(there, dict):
                replace_changed(there, before[key], value)
            else:
                obj[key] = value


def _field_errors(found: Any) -> Iterator[FieldError]:
    """What a validation function gave: nothing, one problem, or several."""
    if found is None:
        return
    if isinstance(found, FieldError | Invalid):
        found = [found]
    for each in found:
        yield each.error if isinstance(each, Invalid) else each
