"""Write the data of the built-in kinds: names, verbs, columns, bootstrap objects.

Source: the recordings of Kubernetes v1.36 in tests/golden/apiserver. Run it after they change: ``python tools/generate_kinds.py``.
The schemas beside (schemas.json.gz) are a recording themselves: the component schemas of all of v1.36's OpenAPI v3 documents, with
every kind that a shared one names.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "apiserver"
TARGET = ROOT / "src" / "bowsprit" / "controlplane" / "data"


def recorded(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def write(name: str, value: Any) -> None:
    TARGET.mkdir(exist_ok=True)
    data = json.dumps(value, separators=(",", ":"), sort_keys=False).encode()
    (TARGET / f"{name}.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))
    print(f"{name}.json.gz: {len(data):,} bytes of JSON")


def kinds() -> list[dict[str, Any]]:
    """One entry per resource and group-version, in the order of discovery."""
    discovery, tables = recorded("discovery"), recorded("tables")["tables"]
    groups = [g["metadata"].get("name", "") for g in discovery["/apis aggregated"]["body"]["items"]]
    result: list[dict[str, Any]] = []
    for body in [discovery["/api aggregated"]["body"], discovery["/apis aggregated"]["body"]]:
        for group in body["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                path = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
                result += resources(discovery[path]["body"], name, version["version"], tables)
    assert len(groups) == len(set(groups))
    return result


def resources(listed: dict[str, Any], group: str, version: str, tables: dict[str, Any]) -> list[dict[str, Any]]:
    by_name: dict[str, dict[str, Any]] = {}
    for entry in listed["resources"]:
        name, _, subresource = entry["name"].partition("/")
        if subresource:
            by_name[name].setdefault("subresources", []).append(
                {key: entry[key] for key in ("group", "version", "kind", "verbs") if key in entry}
                | {"name": subresource}
            )
            continue
        gv = f"{group}/{version}" if group else version
        item = {"group": group, "version": version, "resource": name}
        item |= {
            key: entry[key]
            for key in ("kind", "singularName", "namespaced", "verbs", "shortNames", "categories", "storageVersionHash")
            if key in entry
        }
        table = tables.get(f"{gv}/{name}")
        if table is not None:
            item["columns"] = table["columnDefinitions"]
        by_name[name] = item
    return list(by_name.values())


def main() -> None:
    write("kinds", kinds())
    write("bootstrap", recorded("bootstrap")["apiserver"])


if __name__ == "__main__":
    main()
