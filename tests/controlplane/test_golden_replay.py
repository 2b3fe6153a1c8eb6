"""Exchanges recorded from Kubernetes v1.36, replayed: every answer is equal, or docs/compatibility.md says why not."""

from __future__ import annotations

import asyncio
import importlib.util
import re
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


_load("golden_backend")
golden_replay = _load("golden_replay")
COMPATIBILITY = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
EXCUSED = frozenset(re.findall(r"^\| ([a-z]+/\S+) \| \S.* \|$", COMPATIBILITY.read_text(), re.MULTILINE))
# Parts of the cases that must be equal, whatever the excuses.
_ENOUGH = 0.97


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Any]]:
    return asyncio.run(golden_replay.replay(golden_replay.ORDER))  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("name", golden_replay.ORDER)
def test_answers_equal_those_of_kubernetes(outcomes: dict[str, list[Any]], name: str) -> None:
    different = {
        item.case["id"]: item.differences[0] for item in outcomes[name] if item.differences and not item.skipped
    }
    compared = [item for item in outcomes[name] if not item.skipped]
    print(f"{name}: {len(compared) - len(different)}/{len(compared)} equal")
    unexplained = [f"{case}: {text}" for case, text in different.items() if case not in EXCUSED]
    assert not unexplained, "\n".join(unexplained)
    outdated = {case for case in EXCUSED if case.partition("/")[0] == name} - set(different)
    assert not outdated, f"equal by now, to be taken out of docs/compatibility.md: {sorted(outdated)}"


@pytest.mark.slow
def test_nearly_all_answers_are_equal(outcomes: dict[str, list[Any]]) -> None:
    compared = [item for items in outcomes.values() for item in items if not item.skipped]
    equal = [item for item in compared if not item.differences]
    assert len(equal) >= _ENOUGH * len(compared)
    assert len(compared) > 1200, "nearly all cases were compared"
