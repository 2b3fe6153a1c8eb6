"""Makes machinery/data/openapi.json.gz: the parameters that Kubernetes v1.36 publishes in its OpenAPI documents, as recorded.

Run it after new recordings: ``python tools/generate_openapi.py``.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests/golden/apiserver/cases/openapi.jsonl.gz"
TARGET = ROOT / "src/bowsprit/machinery/data/openapi.json.gz"
_V3 = "openapi/v3-apis-coordination.k8s.io-v1"
_V2 = "openapi/v2-coordination"

# How parameters of one name are told apart: a piece of the description, and the prefix of the key.
_VARIANTS = {
    "container": (("stream logs", "log."), ("The container in which", "attach."), ("", "exec.")),
    "fieldManager": (("required for apply", "patch."), ("", "")),
    "path": (
        ("path to the resource", "rest."),
        ("request to pod", "pods."),
        ("request to node", "nodes."),
        ("", "services."),
    ),
    "stderr": (("attach call", "attach."), ("", "exec.")),
    "stdout": (("attach call", "attach."), ("", "exec.")),
    "stdin": (("Stdin if true", "attach."), ("", "exec.")),
    "tty": (("attach call", "attach."), ("", "exec.")),
}


def recorded() -> dict[str, Any]:
    """The recorded bodies by case."""
    with gzip.open(CASES, "rt") as lines:
        cases = [json.loads(line) for line in lines]
    return {case["id"]: case["response"].get("body") for case in cases}


def key_of(parameter: dict[str, Any]) -> str:
    for piece, prefix in _VARIANTS.get(parameter["name"], ()):
        if piece in parameter["description"]:
            return prefix + str(parameter["name"])
    return str(parameter["name"])


def parameters() -> dict[str, Any]:
    """By key: ``{"v3": the parameter, "reference": its name in the shared parameters of v2, if it is shared}``."""
    bodies = recorded()
    found: dict[str, Any] = {}
    for reference, shared in bodies[_V2]["parameters"].items():
        if shared["in"] != "body":
            v3 = {key: shared[key] for key in ("name", "in", "description", "required") if key in shared}
            v3["schema"] = {"type": shared["type"], "uniqueItems": True}
            found[key_of(shared)] = {"v3": v3, "reference": reference}
    for path in bodies[_V3]["paths"].values():
        for operation in path.values():
            for parameter in (
                operation["parameters"] if isinstance(operation, dict) and "parameters" in operation else ()
            ):
                if parameter["in"] == "query" and not any(item["v3"] == parameter for item in found.values()):
                    found[key_of(parameter)] = {"v3": parameter, "reference": ""}
    return dict(sorted(found.items()))


def main() -> None:
    shared = recorded()[_V2]["parameters"]
    bodies = {
        name: reference
        for reference, item in shared.items()
        if item["in"] == "body"
        for name in [item["schema"]["$ref"].rpartition(".")[2]]
    }
    data = {"parameters": parameters(), "bodies": bodies}
    TARGET.write_bytes(gzip.compress(json.dumps(data, indent=None).encode(), mtime=0))
    print(TARGET.relative_to(ROOT), len(data["parameters"]), "parameters")


if __name__ == "__main__":
    main()
