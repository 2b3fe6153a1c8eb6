"""Writes src/bowsprit/extension/data/definitions.json.gz: the part of the built-in schemas that every kind refers to."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import orjson

from bowsprit.controlplane.schemas import definitions
from bowsprit.machinery.openapi_v3 import META, REF

TARGET = Path(__file__).parents[1] / "src/bowsprit/extension/data/definitions.json.gz"


def subset() -> dict[str, dict[str, object]]:
    """The schemas of meta/v1 and Scale, with all that they refer to, by name."""
    every = definitions()
    wanted = [*(name for name in every if name.startswith(META)), "io.k8s.api.autoscaling.v1.Scale"]
    found: dict[str, dict[str, object]] = {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = every[name]
            wanted += re.findall(rf'"{re.escape(REF)}([^"]+)"', json.dumps(every[name]))
    return dict(sorted(found.items()))


if __name__ == "__main__":
    TARGET.write_bytes(gzip.compress(orjson.dumps(subset()), 9, mtime=0))
