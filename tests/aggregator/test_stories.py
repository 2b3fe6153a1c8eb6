"""Good and bad backends: conditions, answers, what backends see, and documents are those of Kubernetes v1.36."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import stories
from differing import differences

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "aggregator" / "stories.json.gz"


async def test_a_server_with_many_backends_is_as_kubernetes_is(theatre):
    with gzip.open(GOLDEN, "rt") as file:
        want = json.load(file)
    await theatre.set_up()
    got = await stories.perform(theatre)
    assert set(want["requests"]) == set(stories.REQUESTS), "the recording is of other stories"
    assert list(differences(want, got)) == []
