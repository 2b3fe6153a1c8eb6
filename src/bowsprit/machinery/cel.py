"""CEL: the expressions of CustomResourceDefinitions (`x-kubernetes-validations`) and of admission policies.

The language is Google's C++ implementation (cel_expr_python); here are Kubernetes' own functions, the translation of
values by their schema, upstream's error texts, and the walk that finds the rules of a schema and what they apply to.
The library is loaded when the first expression is compiled: most servers never need it.
Contract: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel, k8s.io/apiserver/pkg/cel/library.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from bowsprit.machinery import fielderrors, quantity, time, validation
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.regex import Pattern, RegexError, compile_pattern
from bowsprit.machinery.schemavalidation import Where, render

_OLD_SELF = re.compile(r"(?<![\w.])oldSelf\b")
_STRINGS = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_SELECTION = re.compile(r"expression of type '([^']*)' cannot be the operand of a select operation")
# A name of several parts that is not known: the line, the column, the name, the rest, then the line of the source.
_UNDECLARED = re.compile(r"<input>:(\d+):(\d+): (undeclared reference to )'(\w+(?:\.\w+)+)'(.*)\n \| (.*)\n \| \.*\^")
# What no overload takes: the message, the function, its arguments, then the line of the source and dots up to the place.
_METHOD_CALL = re.compile(
    r"(found no matching overload for '(\w+)' applied to )'\(([^(),]*(?:\([^()]*\))?)(?:, ([^']*))?\)'\n \| (.*)\n \| (\.*)\^"
)
_MISSING_KEY = re.compile(r'Key not found in map : "?(.*?)"?$')


class CelError(ValueError):
    """An expression that does not compile."""


class EvaluationError(CelError):
    """An expression that fails on a value; the text is like cel-go's."""


# --- Kubernetes' functions ----------------------------------------------------------------------------------------


def _find(text: str, pattern: str) -> str:
    match = _pattern(pattern).search(text)
    return match.group() if match else ""


def _find_all(text: str, pattern: str) -> list[str]:
    return [match.group() for match in _pattern(pattern).finditer(text)]


def _pattern(pattern: str) -> Pattern:
    try:
        return compile_pattern(pattern)
    except RegexError as error:
        raise EvaluationError(f"Illegal regex: {error}") from None


def _is_quantity(text: str) -> bool:
    try:
        quantity.Quantity.parse(text)
    except quantity.QuantityError:
        return False
    return True


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc) or text.startswith("/")


def _is_sorted(items: list[Any]) -> bool:
    return all(left <= right for left, right in pairwise(items))


# A quantity is a map with one member, its value times 10^9: equal quantities are equal maps.
def _quantity(text: str) -> dict[str, str]:
    try:
        return {"nano": str(quantity.Quantity.parse(text).nano)}
    except quantity.QuantityError as error:
        raise EvaluationError(str(error)) from None


def _nano(value: Mapping[str, Any]) -> int:
    return int(value["nano"])


def _as_integer(value: Mapping[str, Any]) -> int:
    whole, rest = divmod(_nano(value), 10**9)
    if rest:
        raise EvaluationError("cannot convert value to integer")
    return whole


_LIBRARIES = "name: kubernetes\nextensions:\n- name: sets\n- name: lists\n- name: two-var-comprehensions\n"


@cache
def _environment(variables: tuple[str, ...]) -> Any:
    from cel_expr_python import cel

    return environment(dict.fromkeys(variables, cel.Type.DYN))


def environment(variables: Mapping[str, Any], pool: Any = None) -> Any:
    """The library's environment with Kubernetes' functions: variables by type, `pool` with the messages among the types."""
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_optional, ext_strings

    return cel.NewEnv(
        pool,
        config=cel.NewEnvConfigFromYaml(_LIBRARIES),
        variables=variables,
        extensions=[ext_strings.ExtStrings(2), ext_optional.ExtOptional()],
        functions=_functions(cel),
    )


def _functions(cel: Any) -> list[Any]:
    """Kubernetes' own functions as declarations of the library.

    Not there: indexOf and lastIndexOf of lists (the library has the names for strings only), url(), ip() and cidr()
    values, authorizer.
    """
    text, boolean, whole, anything = cel.Type.STRING, cel.Type.BOOL, cel.Type.INT, cel.Type.DYN
    items, amount = cel.Type.List(anything), cel.Type.Map(text, text)

    def declared(
        name: str, result: Any, parameters: list[Any], function: Callable[..., Any], *, method: bool = True
    ) -> Any:
        overload = cel.Overload(
            f"k8s_{name}_{len(parameters)}", return_type=result, parameters=parameters, is_member=method, impl=function
        )
        return cel.FunctionDecl(name, [overload])

    def check(name: str, function: Callable[[str], bool]) -> Any:
        return declared(name, boolean, [text], function, method=False)

    return [
        declared("find", text, [text, text], _find),
        declared("findAll", cel.Type.List(text), [text, text], _find_all),
        declared("isSorted", boolean, [items], _is_sorted),
        declared("sum", anything, [items], sum),
        declared("min", anything, [items], min),
        declared("max", anything, [items], max),
        check("isQuantity", _is_quantity),
        check("isURL", _is_url),
        check("isIP", lambda value: validation.parse_ip(value) is not None),
        check("isCIDR", lambda value: validation.parse_cidr(value) is not None),
        declared("quantity", amount, [text], _quantity, method=False),
        declared("isGreaterThan", boolean, [amount, amount], lambda left, right: _nano(left) > _nano(right)),
        declared("isLessThan", boolean, [amount, amount], lambda left, right: _nano(left) < _nano(right)),
        declared("compareTo", whole, [amount, amount], lambda left, right: _sign(_nano(left) - _nano(right))),
        declared("sign", whole, [amount], lambda value: _sign(_nano(value))),
        declared("isInteger", boolean, [amount], lambda value: _nano(value) % 10**9 == 0),
        declared("asInteger", whole, [amount], _as_integer),
        declared("asApproximateFloat", cel.Type.DOUBLE, [amount], lambda value: _nano(value) / 10**9),
        declared("add", amount, [amount, amount], lambda left, right: {"nano": str(_nano(left) + _nano(right))}),
        declared("sub", amount, [amount, amount], lambda left, right: {"nano": str(_nano(left) - _nano(right))}),
    ]


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


# --- expressions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression. `result` is the declared type: BOOL, STRING, DYN…"""

    expression: str
    result: str
    _compiled: Any

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The value, as plain Python. Raises EvaluationError."""
        try:
            value = self._compiled.eval(data=dict(variables))
            if value.type().name() == "ERROR":
                raise EvaluationError(_go_text(str(value.value())))
            return value.plain_value()
        except EvaluationError:
            raise
        except Exception as error:  # the library raises RuntimeError and TypeError for whatever goes wrong
            raise EvaluationError(_go_text(str(error))) from None


def _go_text(text: str) -> str:
    text = text.partition(": ")[2] if re.match(r"[A-Z_]+: ", text) else text
    missing = _MISSING_KEY.search(text)
    if missing:
        return f"no such key: {missing.group(1)}"
    if "No matching overloads" in text:
        return "no such overload"
    if "divide by zero" in text or "division by zero" in text:
        return "division by zero"
    index = re.search(r"Index error: index=(-?\d+)", text)
    return f"index out of bounds: {index.group(1)}" if index else text.removesuffix(" [INVALID_ARGUMENT]")


@lru_cache(maxsize=2048)
def compile_expression(expression: str, variables: tuple[str, ...] = ("self", "oldSelf")) -> Program:
    """A program over variables of any type. Raises CelError with the compiler's text."""
    compiled = compile_in(_environment(variables), expression)
    return Program(expression, compiled.return_type().name(), compiled)


def compile_in(environment_: Any, expression: str) -> Any:
    """The library's compiled expression. Raises CelError with the compiler's text, worded as cel-go does."""
    try:
        return environment_.compile(expression)
    except Exception as error:  # the library raises RuntimeError
        text = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
        if not expression:
            text = text.replace("<input>:1:1:", "<input>:1:0:").partition("\n")[0]
        text = re.sub(r"(undefined field '[^']*') not found in struct '[^']*'", r"\1", text)
        text = _SELECTION.sub(r"type '\1' does not support field selection", text)
        text = _UNDECLARED.sub(_undeclared, text)
        text = _METHOD_CALL.sub(_method_call, text).replace("null_type", "null")
        raise CelError(f"compilation failed: {text}") from None


def _undeclared(found: re.Match[str]) -> str:
    """cel-go points at the first part of the name, and names only that."""
    line, column, what, name, rest, source = found.groups()
    starts = [match.start() for match in re.finditer(re.escape(name), source)]
    if not starts:
        return found.group()
    start = min(starts, key=lambda start: abs(start + 1 - int(column)))
    return f"<input>:{line}:{start + 1}: {what}'{name.partition('.')[0]}'{rest}\n | {source}\n | {'.' * start}^"


def _method_call(found: re.Match[str]) -> str:
    """cel-go shows what a method was called on before the arguments: `string.(int)`."""
    message, name, first, others, source, place = found.group(1, 2, 3, 4, 5, 6)
    if not source[: len(place)].endswith(f".{name}"):
        return found.group()
    return f"{message}'{first}.({others or ''})'\n | {source}\n | {place}^"


def uses_old_self(expression: str) -> bool:
    """Whether a rule speaks of the old value: such a rule is checked on updates only."""
    return _OLD_SELF.search(_STRINGS.sub("''", expression)) is not None


# --- values -------------------------------------------------------------------------------------------------------


def to_cel(value: Any, schema: Obj, problems: list[str] | None = None) -> Any:
    """A JSON value as CEL sees it through its schema: times, durations and bytes by format, doubles for numbers.

    A value of the wrong type is replaced by one that no operator takes, and told in `problems`: a rule that does not look
    at it must not fail.
    """
    if value is None or schema.get("x-kubernetes-int-or-string"):
        return value
    kind = schema.get("type")
    if kind == "integer" and isinstance(value, float):
        return _unusable("invalid data, expected int, got float64", problems)
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "string" and isinstance(value, str):
        return _formatted(value, schema.get("format", ""), problems)
    if isinstance(value, dict):
        properties: Obj = schema.get("properties") or {}
        other = schema.get("additionalProperties")
        rest: Obj = other if isinstance(other, dict) else {}
        return {
            escaped(name, properties): to_cel(below, properties.get(name, rest), problems)
            for name, below in value.items()
        }
    if isinstance(value, list):
        items: Obj = schema.get("items") or {}
        return [to_cel(item, items, problems) for item in value]
    return value


def _unusable(problem: str, problems: list[str] | None) -> Any:
    if problems is not None:
        problems.append(problem)
    return b"\x00unusable"


def _formatted(value: str, format_: str, problems: list[str] | None) -> Any:
    """Times and durations travel as protobuf messages: the library takes no others inside of maps."""
    try:
        if format_ == "date-time":
            from google.protobuf.timestamp_pb2 import Timestamp

            moment = time.parse_time(value)
            return Timestamp(seconds=int(moment.timestamp() // 1), nanos=moment.microsecond * 1000)
        if format_ == "duration":
            from google.protobuf.duration_pb2 import Duration

            nanoseconds = time.parse_duration(value)
            sign = -1 if nanoseconds < 0 else 1
            return Duration(seconds=sign * (abs(nanoseconds) // 10**9), nanos=sign * (abs(nanoseconds) % 10**9))
        if format_ == "byte":
            return base64.b64decode(value)
    except (DecodeError, binascii.Error) as error:
        return _unusable(str(error), problems)
    return value


KEYWORDS = frozenset(
    {
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip


def escaped(name: str, properties: Obj) -> str:
    """A property's name as expressions must write it; keys of maps stay as they are."""
    if name not in properties:
        return name
    if name in KEYWORDS:
        return f"__{name}__"
    if name.isidentifier() and "__" not in name:
        return name
    text = (
        name.replace("__", "__underscores__").replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    )
    return text if text.isidentifier() else name


# --- rules of a schema --------------------------------------------------------------------------------------------


class Rules:
    """The `x-kubernetes-validations` of a schema, compiled on first use; false when there are none."""

    def __init__(self, openapi: Obj):
        self._openapi = openapi
        self._present = _has_rules(openapi)

    def __bool__(self) -> bool:
        return self._present

    def validate(self, value: Any, old: Any = None) -> list[FieldError]:
        """What the rules say of a value; transition rules need the old one."""
        errors: list[FieldError] = []
        if self._present:
            _validate(value, old, self._openapi, None, errors)
        return errors


def _has_rules(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    below: Iterable[Any] = (
        *(schema.get("properties") or {}).values(),
        schema.get("additionalProperties"),
        schema.get("items"),
    )
    return bool(schema.get("x-kubernetes-validations")) or any(map(_has_rules, below))


def _validate(value: Any, old: Any, schema: Obj, where: Where, errors: list[FieldError]) -> None:
    if value is None:
        return
    rules = schema.get("x-kubernetes-validations")
    if rules:
        _run_rules(rules, value, old, schema, where, errors)
    if isinstance(value, dict):
        properties: Obj = schema.get("properties") or {}
        other = schema.get("additionalProperties")
        before = old if isinstance(old, dict) else {}
        for name, member in value.items():
            below = properties.get(name, other)
            if isinstance(below, dict):
                _validate(member, before.get(name), below, (where, f".{name}"), errors)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        earlier = _keyed(old, schema)
        for index, item in enumerate(value):
            _validate(item, earlier.get(_key(item, schema)), schema["items"], (where, f"[{index}]"), errors)


def _key(item: Any, schema: Obj) -> tuple[Any, ...] | None:
    """What correlates items of old and new lists: the keys of a keyed list, nothing otherwise."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if schema.get("x-kubernetes-list-type") != "map" or not keys or not isinstance(item, dict):
        return None
    return tuple(repr(item.get(key)) for key in keys)


def _keyed(items: Any, schema: Obj) -> dict[tuple[Any, ...] | None, Any]:
    if not isinstance(items, list):
        return {}
    index = {_key(item, schema): item for item in items}
    index.pop(None, None)
    return index


def _run_rules(rules: list[Obj], value: Any, old: Any, schema: Obj, where: Where, errors: list[FieldError]) -> None:
    field = render(where) or None
    shown_type = "string" if schema.get("x-kubernetes-int-or-string") else schema.get("type", "object")
    problems: list[str] = []
    variables = {"self": to_cel(value, schema, problems), "oldSelf": to_cel(old, schema)}
    for rule in rules:
        expression = rule.get("rule", "")
        optional = bool(rule.get("optionalOldSelf"))
        transition = uses_old_self(expression)
        if transition and old is None and not optional:
            continue
        message = (rule.get("message") or "").strip() or f"failed rule: {expression.strip()}"
        try:
            if _program(expression, transition and optional, old is not None).evaluate(variables) is True:
                continue
        except (CelError, EvaluationError) as error:
            text = problems[0] if problems and str(error) == "no such overload" else str(error)
            errors.append(fielderrors.invalid(field, shown_type, f"{text} evaluating rule: {message}"))
            continue
        message = _message(rule, variables, message)
        at = render((where, rule["fieldPath"])) if rule.get("fieldPath") else field
        errors.append(_failure(rule.get("reason") or "FieldValueInvalid", at, message))


def _program(expression: str, optional: bool, present: bool) -> Program:
    if not optional:
        return compile_expression(expression)
    # oldSelf is an optional value in the rule: the element of a list hides the variable of that name.
    wrapped = "optional.of(oldSelf)" if present else "optional.none()"
    return compile_expression(f"[{wrapped}].map(oldSelf, {expression})[0]")


def _message(rule: Obj, variables: Mapping[str, Any], fallback: str) -> str:
    expression = rule.get("messageExpression")
    if not expression:
        return fallback
    try:
        text = compile_expression(expression).evaluate(variables)
    except (CelError, EvaluationError):
        return fallback
    usable = isinstance(text, str) and text.strip() and "\n" not in text and len(text) <= 5120
    return text.strip() if usable else fallback


def _failure(reason: str, field: str | None, message: str) -> FieldError:
    if reason == "FieldValueForbidden":
        return fielderrors.forbidden(field, message)
    if reason == "FieldValueRequired":
        return fielderrors.required(field, message)
    if reason == "FieldValueDuplicate":
        return FieldError(fielderrors.ErrorType.DUPLICATE, field or "<nil>", fielderrors.OMIT, message)
    return fielderrors.invalid(field, fielderrors.OMIT, message)
