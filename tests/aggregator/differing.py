"""Where two JSON values differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def differences(want: Any, got: Any, where: str = "") -> Iterator[str]:
    if isinstance(want, dict) and isinstance(got, dict):
        for key in {**want, **got}:
            if key not in got or key not in want:
                yield f"{where}.{key}: {'missing' if key not in got else 'surplus'}"
            else:
                yield from differences(want[key], got[key], f"{where}.{key}")
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for position, (left, right) in enumerate(zip(want, got, strict=True)):
            yield from differences(left, right, f"{where}[{position}]")
    elif isinstance(want, str) and isinstance(_parsed(want), dict) and isinstance(_parsed(got), dict):
        yield from differences(_parsed(want), _parsed(got), where)
    elif want != got:
        yield f"{where}: got {got!r}, want {want!r}"
