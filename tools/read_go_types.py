"""Read from the published Go types of a Kubernetes release what JSON and protobuf alone do not tell, into one table.

    python tools/read_go_types.py CHECKOUTS VERSION tests/golden/apiserver/go-types.json.gz

CHECKOUTS holds clones of kubernetes/api, apimachinery, apiextensions-apiserver and kube-aggregator; VERSION is a tag such
as v0.36.0. The table holds facts only: for each struct its fields in order (Go name, JSON name, protobuf number, Go type,
flags, and where there is any, how patches and apply merge it),
for each other named type what it stands for,
for each package its API group. Flags: o omitempty, z omitzero, i inlined in JSON, x not in protobuf.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

REPOSITORIES = {
    "k8s.io/api": "api",
    "k8s.io/apimachinery": "apimachinery",
    "k8s.io/apiextensions-apiserver": "apiextensions-apiserver",
    "k8s.io/kube-aggregator": "kube-aggregator",
}
PACKAGES = re.compile(
    r"k8s\.io/api/[a-z]+/v[0-9]+[a-z0-9]*|k8s\.io/apiextensions-apiserver/pkg/apis/apiextensions/v[0-9]+[a-z0-9]*"
    r"|k8s\.io/kube-aggregator/pkg/apis/apiregistration/v[0-9]+[a-z0-9]*"
    r"|k8s\.io/apimachinery/pkg/(apis/meta/v1(beta1)?|api/resource|runtime|util/intstr|types)"
)
_IMPORT = re.compile(r'^\s*(?:([A-Za-z0-9_]+)\s+)?"([^"]+)"\s*$')
_STRUCT = re.compile(r"^type ([A-Za-z0-9_]+) struct ?\{(\})?$")
_NAMED = re.compile(r"^type ([A-Za-z0-9_]+) (?:= )?([A-Za-z0-9_.\[\]*]+)\s*(?://.*)?$")
_FIELD = re.compile(r"^\t(?:([A-Za-z0-9_]+)\s+)?([A-Za-z0-9_.\[\]*]+)\s+`([^`]*)`")
_MARKER = re.compile(r"^\s*// ?\+(listType|listMapKey|mapType|structType|default)=(\"[^\"]*\"|[A-Za-z0-9]+)\s*$")
_BASIC = {"string", "bool", "int32", "int64", "float64", "byte", "int", "uint32", "uint64", "int8", "uint8", "any"}


def message_name(package: str, name: str) -> str:
    return f"{package.replace('/', '.').replace('-', '_')}.{name}"


def qualify(expression: str, package: str, imports: dict[str, str]) -> str:
    """A Go type expression with every named type written as a message name."""

    def name(match: re.Match[str]) -> str:
        qualifier, bare = match.group(1), match.group(2)
        if qualifier:
            return message_name(imports[qualifier[:-1]], bare)
        return bare if bare in _BASIC | {"map"} else message_name(package, bare)

    return re.sub(r"([A-Za-z0-9_]+\.)?([A-Za-z_][A-Za-z0-9_]*)", name, expression)


def read_markers(comments: list[str]) -> dict[str, object]:
    """The `+listType=map`, `+listMapKey=name` and so on of the comments above a type or field."""
    markers: dict[str, object] = {}
    for line in comments:
        if match := _MARKER.match(line):
            name, value = match.groups()
            if name == "listMapKey":
                markers[name] = [*markers.get(name, []), value]  # type: ignore[misc]
            elif name == "default":
                markers[name] = json.loads(value) if not value[0].isalpha() or value in {"true", "false"} else value
            else:
                markers[name] = value
    return markers


def read_field(line: str, package: str, imports: dict[str, str], markers: dict[str, object]) -> list[object] | None:
    match = _FIELD.match(line)
    if match is None:
        return None
    go_name, expression, tags = match.groups()
    tag = dict(re.findall(r'([A-Za-z]+):"([^"]*)"', tags))
    if "json" not in tag:
        return None
    json_name, *options = tag["json"].split(",")
    if json_name == "-" and "protobuf" not in tag:
        return None
    number = int(tag["protobuf"].split(",")[1]) if tag.get("protobuf", "-") != "-" else 0
    inlined = "inline" in options or (not json_name and go_name is None)
    flags = ("o" if "omitempty" in options else "") + ("z" if "omitzero" in options else "")
    flags += ("i" if inlined else "") + ("" if number else "x")
    merging = dict(markers)
    merging |= {key: tag[key] for key in ("patchStrategy", "patchMergeKey") if key in tag}
    name = go_name or expression.rpartition(".")[2].lstrip("*")
    entry: list[object] = [name, json_name, number, qualify(expression, package, imports), flags]
    return [*entry, merging] if merging else entry


def read_file(text: str, package: str, table: dict[str, dict[str, object]]) -> None:
    imports: dict[str, str] = {}
    block = re.search(r"^import \((.*?)^\)", text, re.S | re.M)
    lines = (block.group(1).splitlines() if block else []) + re.findall(r"^import (.*)$", text, re.M)
    for line in lines:
        match = _IMPORT.match(line)
        if match:
            imports[match.group(1) or match.group(2).rpartition("/")[2]] = match.group(2)
    current: list[object] | None = None
    if group := re.search(r'^(?:const |\t)GroupName\s+= "([^"]*)"', text, re.M):
        table["groups"][package.replace("/", ".").replace("-", "_")] = group.group(1)
    comments: list[str] = []
    for line in text.splitlines():
        if line.strip().startswith("//") or (not line.strip() and current is None):
            comments.append(line)
            continue
        markers = read_markers(comments)
        comments = []
        if current is not None:
            if line == "}":
                current = None
            elif field := read_field(line, package, imports, markers):
                current.append(field)
        elif match := _STRUCT.match(line):
            fields: list[object] = []
            table["structs"][message_name(package, match.group(1))] = fields
            if markers:
                table["merging"][message_name(package, match.group(1))] = markers
            current = None if match.group(2) else fields
        elif (match := _NAMED.match(line)) and match.group(2) != "interface":
            table["named"][message_name(package, match.group(1))] = qualify(match.group(2), package, imports)
            if markers:
                table["merging"][message_name(package, match.group(1))] = markers


def is_published(name: str) -> bool:
    package, _, bare = name.rpartition(".")
    internal = package.endswith((".runtime", ".resource", ".types")) and bare not in {
        "RawExtension",
        "Unknown",
        "TypeMeta",
        "Quantity",
    }
    return bare[0].isupper() and not internal


def main() -> None:
    checkouts, version, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    table: dict[str, dict[str, object]] = {"structs": {}, "named": {}, "groups": {}, "merging": {}}
    for module, repository in REPOSITORIES.items():
        git = ["git", "--git-dir", str(next(checkouts.glob(f"*{repository}/repo"), checkouts / repository / ".git"))]
        listed = subprocess.run(
            [*git, "ls-tree", "-r", "--name-only", version], check=True, capture_output=True, text=True
        )
        for path in listed.stdout.splitlines():
            folder, _, file = path.rpartition("/")
            package = f"{module}/{folder}"
            generated = file.startswith(("zz_generated", "generated")) or file.endswith("_test.go")
            if not PACKAGES.fullmatch(package) or not file.endswith(".go") or generated:
                continue
            text = subprocess.run(
                [*git, "show", f"{version}:{path}"], check=True, capture_output=True, text=True
            ).stdout
            read_file(text, package, table)
    table["structs"] = {name: fields for name, fields in sorted(table["structs"].items()) if is_published(name)}
    table["named"] = dict(sorted(table["named"].items()))
    target.write_bytes(gzip.compress(json.dumps(table, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(table['structs'])} structs, {len(table['named'])} other types in {target}")


if __name__ == "__main__":
    main()
