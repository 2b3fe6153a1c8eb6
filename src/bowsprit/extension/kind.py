"""Kind: the base of an author's models, and the metadata that every object has."""

from __future__ import annotations

import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.objects import Obj

_CONFIG = ConfigDict(
    alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, use_attribute_docstrings=True
)


class Model(BaseModel):
    """A part of a kind whose snake_case fields are camelCase in JSON; a string below a field is its description.

    Any pydantic model can be a part; those of other bases keep their fields' names.
    """

    model_config = _CONFIG


class OwnerReference(Model):
    """metav1.OwnerReference."""

    model_config = ConfigDict(extra="allow")

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Model):
    """metav1.ObjectMeta, as far as authors look at it; the rest is kept."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime.datetime | None = None
    deletion_timestamp: datetime.datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[OwnerReference] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        """Nulls in metadata mean absence, whatever the type."""
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class Kind(Model):
    """One object of an author's kind. Subclasses add `spec`, `status` or whatever they hold; a docstring is its description."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)


K = TypeVar("K", bound=Kind)


def parse(model: type[K], obj: Obj) -> K:
    """The object as a model. Raises pydantic.ValidationError.

    Not strict, although the schema is: that judges first, and behind a validator of mode "before" pydantic would hold
    texts for what JSON has no type for (dates, enumerations) against a strict model.
    """
    return model.model_validate_json(encode_json(obj))


def render(obj: Kind | Obj) -> Obj:
    """The object as JSON, without what is None, and without fields that were neither given nor changed: defaults are not
    written for good."""
    if isinstance(obj, dict):
        return obj
    _mark_changed(obj)
    made: Obj = obj.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    return made


def _mark_changed(value: Any) -> bool:
    """Counts fields as set whose value was changed in place (a label put into a default dict); whether there are any set."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            part = getattr(value, name)
            inside = _mark_changed(part)
            if name not in value.model_fields_set:
                changed = (
                    inside if isinstance(part, BaseModel) else part != field.get_default(call_default_factory=True)
                )
                if changed:
                    value.model_fields_set.add(name)
        return bool(value.model_fields_set)
    if isinstance(value, list | tuple):
        for item in value:
            _mark_changed(item)
    elif isinstance(value, dict):
        for item in value.values():
            _mark_changed(item)
    return False


def render_all(obj: Kind | Obj) -> Obj:
    """The object as JSON with its defaults, for objects that an author's storage made; members that are None stay away."""
    if isinstance(obj, dict):
        return obj
    made: dict[str, Any] = obj.model_dump(mode="json", by_alias=True, exclude={"metadata"}, exclude_none=True)
    meta = obj.metadata.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {**made, "metadata": meta}
