"""Exchanges recorded from Kubernetes v1.36, replayed: how many answers are equal, per file, may only grow."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


golden_replay = _load("golden_replay")

# Cases that may differ, per file; the reasons are in docs/compatibility.md.
MAY_DIFFER = {
    "defaulting": 1,
    "validation": 11,
    "metadata": 0,
    "concurrency": 0,
    "patches": 1,
    "dryrun": 0,
    "fieldvalidation": 1,
    "apply": 4,
    "lists": 1,
    "watch": 0,
    "negotiation": 0,
    "protobuf": 6,
    "auth": 0,
    "subresources": 1,
    "crds": 6,
    "apiservices": 3,
    "health": 1,
    "openapi": 8,
    "admission": 0,
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Any]]:
    return asyncio.run(golden_replay.replay(golden_replay.ORDER))  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MAY_DIFFER))
def test_answers_equal_those_of_kubernetes(outcomes: dict[str, list[Any]], name: str) -> None:
    different = [
        f"{item.case['id']}: {item.differences[0]}" for item in outcomes[name] if item.differences and not item.skipped
    ]
    assert len(different) <= MAY_DIFFER[name], "\n".join(different)
