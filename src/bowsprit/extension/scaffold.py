"""``extension new``: a folder with a kind, its test, a pyproject and a Containerfile. Nothing in it is generated again."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from bowsprit.extension.declaration import plural_of
from bowsprit.extension.errors import ExtensionError
from bowsprit.machinery.validation import is_dns1123_subdomain

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TAKEN = ("bowsprit", "pydantic", "pytest", "tests")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]*")

_MODULE = '''"""{kind}: served by `bowsprit extension run {name}:app`."""

from bowsprit.extension import App, Kind, Model

app = App("{group}")


class {kind}Spec(Model):
    text: str = "hello"
    """What to say."""


@app.kind(columns={{"Text": ".spec.text"}})
class {kind}(Kind):
    """A {singular} says something."""

    spec: {kind}Spec = {kind}Spec()
'''

_TEST = '''"""Run with: pytest"""

from {module} import {kind}, app

MANIFEST = """
apiVersion: {group}/v1
kind: {kind}
metadata: {{name: first}}
"""


def test_says_hello_by_default():
    assert {kind}().spec.text == "hello"


def test_is_served(extension, kubectl, ns):
    extension(app)
    kubectl("apply", "-n", ns, "-f", "-", stdin=MANIFEST)
    assert kubectl("get", "{singular}", "first", "-n", ns, "-o", "json")["spec"]["text"] == "hello"
'''

_PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["bowsprit"]

[tool.setuptools]
py-modules = ["{module}"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

_CONTAINERFILE = """FROM python:3.13-slim
COPY pyproject.toml {module}.py /app/
RUN pip install --no-cache-dir /app
USER 65532:65532
ENTRYPOINT ["bowsprit", "extension", "run", "{module}:app"]
"""


def files(name: str, group: str = "", kind: str = "") -> dict[str, str]:
    """The files of a new extension by name. Raises ExtensionError for names that cannot be used."""
    if not _NAME.fullmatch(name) or len(name) > 50:
        raise ExtensionError(
            f"{name!r} is no name for an extension",
            reason="InvalidName",
            hint="use lower-case words with dashes: my-kind",
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _TAKEN:
        raise ExtensionError(f"a module cannot be called {module!r}", reason="InvalidName", hint="take another word")
    group = group or f"{name}.example.com"
    if problems := is_dns1123_subdomain(group):
        raise ExtensionError(f"group {group!r}: {problems[0]}", reason="InvalidGroup")
    if "." not in group:
        raise ExtensionError(f"group {group!r} has no dot", reason="InvalidGroup", hint=f"use {group}.example.com")
    kind = kind or "".join(word.capitalize() for word in name.split("-"))
    if not _KIND.fullmatch(kind):
        raise ExtensionError(f"kind {kind!r} is no CamelCase name", reason="InvalidKind", hint="for example MyKind")
    words = {
        "name": name,
        "module": module,
        "group": group,
        "kind": kind,
        "singular": kind.lower(),
        "plural": plural_of(kind),
    }
    return {
        f"{module}.py": _MODULE.format_map(words),
        f"test_{module}.py": _TEST.format_map(words),
        "pyproject.toml": _PYPROJECT.format_map(words),
        "Containerfile": _CONTAINERFILE.format_map(words),
    }


def write(folder: Path, contents: dict[str, str]) -> None:
    """Makes the folder. Raises ExtensionError when it exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExtensionError(f"{folder} exists already", reason="AlreadyExists", hint="take another name, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as failure:
        raise ExtensionError(
            f"{folder} cannot be written: {failure.strerror or failure}", reason="WriteFailed"
        ) from failure
