"""From a pydantic model to a structural schema, the form in which Kubernetes knows types.

JSON Schema says more than a structural schema may. What can be said is translated; where a union of different types, a
recursive model or an unconstrained value remains, the schema accepts anything there and the model itself, which judges every
object after the schema, is the only judge. Contract: apiextensions.k8s.io structural schemas (KEP-1693).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from bowsprit.extension.errors import ExtensionError
from bowsprit.machinery.objects import Obj

_ANYTHING: Obj = {"x-kubernetes-preserve-unknown-fields": True}
_INT_OR_STRING: Obj = {"x-kubernetes-int-or-string": True}
# Members that mean the same in both.
_SAME = (
    "description",
    "default",
    "enum",
    "format",
    "maximum",
    "minimum",
    "maxItems",
    "minItems",
    "maxLength",
    "minLength",
    "maxProperties",
    "minProperties",
    "multipleOf",
    "pattern",
    "required",
    "type",
    "example",
)
_JSON_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
}
# Formats of JSON Schema that structural schemas do not have.
_FORMATS = {"binary": None, "time": None, "json-string": None, "duration": None, "date-time": "date-time", "path": None}


class _Generator(GenerateJsonSchema):
    """Keeps the defaults that a model's class makes, and is quiet about what has no JSON form."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        factory: Any = schema.get("default_factory")
        if isinstance(factory, type) and issubclass(factory, BaseModel):
            return {**made, "default": factory().model_dump(mode="json", by_alias=True)}
        return made


def kind_schema(model: type[BaseModel]) -> Obj:
    """The openAPIV3Schema of a kind: apiVersion, kind and metadata belong to everybody. Raises ExtensionError."""
    schema = model_schema(model)
    properties = schema.get("properties") or {}
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **{name: part for name, part in properties.items() if name not in ("apiVersion", "kind", "metadata")},
    }
    return schema


def model_schema(model: type[BaseModel]) -> Obj:
    """The structural schema of a model. Raises ExtensionError for one that has no JSON form."""
    try:
        source = model.model_json_schema(by_alias=True, schema_generator=_Generator, mode="validation")
    except PydanticInvalidForJsonSchema as failure:
        raise ExtensionError(
            f"{model.__name__}: {failure.message}",
            reason="InvalidModel",
            hint="use types that JSON has: text, numbers, booleans, lists, dicts with text keys, and models of these",
        ) from failure
    return _Translation(source.pop("$defs", {})).translate(source, ())


class _Translation:
    """One model's JSON Schema, with its definitions put where they are used."""

    def __init__(self, definitions: dict[str, Obj]) -> None:
        self._definitions = definitions

    def translate(self, source: Obj, within: Sequence[str]) -> Obj:
        """`within`: the definitions that enclose this place; meeting one again is recursion, which ends in anything."""
        if "$ref" in source:
            name = source["$ref"].rpartition("/")[2]
            beside = {key: value for key, value in source.items() if key != "$ref"}
            if name in within:
                return _with_extensions({"type": "object", **_ANYTHING}, beside)
            return self.translate({**self._definitions[name], **beside}, (*within, name))
        if "allOf" in source and len(source["allOf"]) == 1:
            beside = {key: value for key, value in source.items() if key != "allOf"}
            return self.translate({**source["allOf"][0], **beside}, within)
        for word in ("anyOf", "oneOf"):
            if word in source:
                beside = {key: value for key, value in source.items() if key not in (word, "discriminator")}
                return self._union(source[word], beside, within)
        return self._plain(source, within)

    # -- unions --------------------------------------------------------------------------------------------------------

    def _union(self, choices: Sequence[Obj], beside: Obj, within: Sequence[str]) -> Obj:
        real = [choice for choice in choices if choice.get("type") != "null"]
        if len(real) == len(choices):
            return self._choice(real, beside, within)
        made = self._choice(real, beside, within) if real else _with_extensions(dict(_ANYTHING), beside)
        if beside.get("default", ...) is None:
            return made  # a field that may be left out: null says no more, and is dropped
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
        return {**made, "nullable": True}

    def _choice(self, choices: Sequence[Obj], beside: Obj, within: Sequence[str]) -> Obj:
        if len(choices) == 1:
            return self.translate({**choices[0], **beside}, within)
        if [choice.get("type") for choice in choices] in (["integer", "string"], ["string", "integer"]) and not any(
            set(choice) - {"type", "title"} for choice in choices
        ):
            made = _with_extensions(dict(_INT_OR_STRING), beside)
            return made | ({"pattern": beside["pattern"]} if "pattern" in beside else {})
        translated = [self.translate(choice, within) for choice in choices]
        types = {each.get("type") for each in translated}
        if types == {"integer", "number"}:
            return _with_extensions({"type": "number"}, beside)
        if len(types) != 1 or None in types:
            return _with_extensions(dict(_ANYTHING), beside)
        if types == {"object"}:
            return _with_extensions(_merged_objects(translated), beside)
        if all("enum" in each for each in translated):
            values = [value for each in translated for value in each["enum"]]
            return _with_extensions({"type": types.pop(), "enum": values}, beside)
        if types == {"array"}:
            return _with_extensions({"type": "array", "items": dict(_ANYTHING)}, beside)
        return _with_extensions({"type": types.pop()}, beside)

    # -- everything else -----------------------------------------------------------------------------------------------

    def _plain(self, source: Obj, within: Sequence[str]) -> Obj:
        made: Obj = {key: source[key] for key in _SAME if key in source}
        made |= {key: value for key, value in source.items() if key.startswith("x-kubernetes-")}
        if "const" in source:
            made["enum"] = [source["const"]]
        if "enum" in made and "type" not in made:
            made["type"] = _JSON_TYPES.get(type(made["enum"][0]), "string")
        for bound in ("Maximum", "Minimum"):
            exclusive = source.get(f"exclusive{bound}")
            name = bound.lower()
            if exclusive is not None and (name not in made or _is_tighter(name, exclusive, made[name])):
                made[name] = exclusive
                made[f"exclusive{bound}"] = True
        if made.get("format") in _FORMATS:
            form = _FORMATS[made.pop("format")]
            if form:
                made["format"] = form
        _drop_idle_default(made, bool(source.get("properties")))
        match made.get("type"):
            case "object":
                self._object(source, made, within)
            case "array":
                self._array(source, made, within)
            case "integer":
                made.setdefault("format", "int64")
            case None:
                if not made.get("x-kubernetes-int-or-string"):
                    made |= _ANYTHING
        if made.pop("x-kubernetes-atomic", False):
            name = "x-kubernetes-list-type" if made.get("type") == "array" else "x-kubernetes-map-type"
            made[name] = "atomic"
        return made

    def _object(self, source: Obj, made: Obj, within: Sequence[str]) -> None:
        if "properties" in source:
            made["properties"] = {name: self.translate(part, within) for name, part in source["properties"].items()}
            if source.get("additionalProperties") not in (None, False):
                made |= _ANYTHING
            return
        patterns = source.get("patternProperties") or {}
        values = source.get("additionalProperties", next(iter(patterns.values()), None))
        if isinstance(values, dict) and values:
            made["additionalProperties"] = self.translate(values, within)
        elif values is not False:
            made |= _ANYTHING

    def _array(self, source: Obj, made: Obj, within: Sequence[str]) -> None:
        items = source.get("items")
        if "prefixItems" in source:
            parts = [self.translate(part, within) for part in source["prefixItems"]]
            made["items"] = parts[0] if parts and all(part == parts[0] for part in parts) else dict(_ANYTHING)
        elif isinstance(items, dict):
            made["items"] = self.translate(items, within)
        else:
            made["items"] = dict(_ANYTHING)
        if source.get("uniqueItems") and "x-kubernetes-list-type" not in made:
            made["x-kubernetes-list-type"] = "set"


def _merged_objects(choices: Sequence[Obj]) -> Obj:
    """One object that has the members of all; where they differ, anything."""
    properties: dict[str, Obj] = {}
    free = False
    for choice in choices:
        free = free or "properties" not in choice or bool(choice.get("x-kubernetes-preserve-unknown-fields"))
        for name, part in (choice.get("properties") or {}).items():
            part = {key: value for key, value in part.items() if key != "default"}
            known = properties.get(name)
            if known is None or known == part:
                properties[name] = part
            elif "enum" in known and "enum" in part and known.get("type") == part.get("type"):
                properties[name] = {**known, "enum": list(dict.fromkeys([*known["enum"], *part["enum"]]))}
            else:
                properties[name] = dict(_ANYTHING)
    required = [name for name in properties if all(name in (choice.get("required") or ()) for choice in choices)]
    made: Obj = {"type": "object", "properties": properties}
    if required:
        made["required"] = required
    return made | (_ANYTHING if free else {})


def _with_extensions(made: Obj, beside: Obj) -> Obj:
    made |= {key: value for key, value in beside.items() if key.startswith("x-kubernetes-")}
    for key in ("description", "default"):
        if key in beside:
            made[key] = beside[key]
    _drop_idle_default(made, "properties" in made)
    return made


def _drop_idle_default(made: Obj, fields: bool) -> None:
    """Defaults that say nothing are not written into objects: null, and lists and maps that are empty."""
    if "default" not in made:
        return
    value = made["default"] = _without_nulls(made["default"])
    if value is None or value == [] or (value == {} and not fields):
        del made["default"]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(child) for key, child in value.items() if child is not None}
    return value


def _is_tighter(name: str, bound: float, other: float) -> bool:
    return bound <= other if name == "maximum" else bound >= other
