"""Good and bad backends: conditions, answers, what backends see, and documents are those of Kubernetes v1.36."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import stories

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "aggregator" / "stories.json.gz"


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


async def test_a_server_with_many_backends_is_as_kubernetes_is(theatre):
    with gzip.open(GOLDEN, "rt") as file:
        want = json.load(file)
    await theatre.set_up()
    got = await stories.perform(theatre)
    assert set(want["requests"]) == set(stories.REQUESTS), "the recording is of other stories"
    assert list(differences(want, got)) == []
