"""Write the field tables of the built-in types that `bowsprit.machinery.gotypes` loads.

    python tools/generate_protobuf_tables.py

Input: tests/golden/apiserver/go-types.json.gz (from the published Go types, see tools/read_go_types.py), checked field by
field against tests/golden/apiserver/protobuf-fields.json.gz (from the published proto files).
Output: src/bowsprit/machinery/data/gotypes.json.gz.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden/apiserver"
TARGET = ROOT / "src/bowsprit/machinery/data/gotypes.json.gz"
# The envelope's last two fields have no JSON name; the envelope is read by hand.
UNNAMED = {"k8s.io.apimachinery.pkg.runtime.Unknown"}


def check(structs: dict[str, list[list[object]]], messages: dict[str, dict[str, list[object]]]) -> list[str]:
    """Structs whose field numbers differ from those of the proto message of the same name."""
    return [
        name
        for name, fields in structs.items()
        if name in messages
        and name not in UNNAMED
        and fields
        and {field[2] for field in fields if field[2]} != {field[0] for field in messages[name].values()}
    ]


def main() -> None:
    table = json.loads(gzip.decompress((GOLDEN / "go-types.json.gz").read_bytes()))
    messages = json.loads(gzip.decompress((GOLDEN / "protobuf-fields.json.gz").read_bytes()))
    wrong = check(table["structs"], messages)
    if wrong:
        raise SystemExit(f"field numbers differ between the Go types and the proto files: {', '.join(wrong)}")
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(gzip.compress(json.dumps(table, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(table['structs'])} structs in {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
