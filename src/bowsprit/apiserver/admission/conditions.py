"""Match conditions and the values that expressions of webhooks and policies see.

Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions, .../plugin/cel. The variable `authorizer` is not
offered: an expression that names it does not compile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bowsprit.machinery import cel, fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj

VARIABLES = ("object", "oldObject", "request", "params", "namespaceObject", "variables")


class ConditionError(Exception):
    """An expression that fails; the text is upstream's."""


def activation(request: Obj, obj: Obj | None, old: Obj | None, **more: Any) -> dict[str, Any]:
    """The values of all variables; those that are not given are null."""
    shown = {key: value for key, value in request.items() if key not in ("object", "oldObject")}
    return {**dict.fromkeys(VARIABLES), "object": obj, "oldObject": old, "request": shown, **more}


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """The value of an expression.

    Raises:
        ConditionError: it does not compile, or fails.
    """
    try:
        return cel.compile_expression(expression, VARIABLES).evaluate(values)
    except cel.EvaluationError as exc:
        raise ConditionError(f"expression '{expression}' resulted in error: {exc}") from exc
    except cel.CelError as exc:
        raise ConditionError(f"compilation error: {exc}") from exc


_OF_OBJECT = re.compile(r"(object|oldObject)(\.\w+)*")
_NAMES = {"BOOL": "bool", "STRING": "string", "INT": "int", "UINT": "uint", "DOUBLE": "double", "NULL": "null_type"}


def expression_errors(expression: str, where: Path, *wanted: str) -> list[FieldError]:
    """What is wrong with an expression of a policy or webhook: its syntax, its names, its type.

    Args:
        wanted: CEL types it may have ("BOOL", "STRING", "NULL"); none allows any.
    """
    if not expression.strip():
        return [fielderrors.required(where, "expression is not specified")]
    try:
        result = cel.compile_expression(expression, VARIABLES).result
    except cel.CelError as exc:
        return [fielderrors.invalid(where, expression, str(exc))]
    untyped = result == "DYN" and not _OF_OBJECT.fullmatch(expression.strip())  # what upstream may know the type of
    if wanted and result not in wanted and not untyped:
        names = " ".join(_NAMES[name] for name in wanted)
        expected = names if len(wanted) == 1 else f"one of [{names}]"
        text = f"must evaluate to {expected} but got {_NAMES.get(result, result.lower())}"
        return [fielderrors.invalid(where, expression, text)]
    return []


class MatchConditions:
    """The `matchConditions` of a webhook or policy: all must hold."""

    def __init__(self, conditions: Sequence[Obj]) -> None:
        self._expressions = [str(item.get("expression") or "") for item in conditions]

    @property
    def is_empty(self) -> bool:
        return not self._expressions

    def hold(self, request: Obj, obj: Obj | None, old: Obj | None, **more: Any) -> bool:
        """Whether all are true; one that is false outweighs others that fail.

        Raises:
            ConditionError: one fails, and none is false.
        """
        values = activation(request, obj, old, **more)
        failures = []
        for expression in self._expressions:
            try:
                if evaluate(expression, values) is not True:
                    return False
            except ConditionError as exc:
                failures.append(str(exc))
        if failures:
            raise ConditionError(failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]")
        return True
