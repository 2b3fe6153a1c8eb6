"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "bowsprit"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if not path.name.endswith("_pb2.py"))
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def test_no_module_is_longer_than_900_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count for path in MODULES if (count := len(path.read_text().splitlines())) > 900
    }
    assert long == {}


def test_modules_are_named_for_what_they_hold() -> None:
    assert [str(path) for path in MODULES if path.stem in FORBIDDEN_NAMES or path.parent.name in FORBIDDEN_NAMES] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path.relative_to(ROOT)) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_package_docstrings_state_their_law() -> None:
    packages = [path for path in SOURCE.iterdir() if (path / "__init__.py").is_file()]
    assert len(packages) == 17
    for package in packages:
        assert "Law:" in (ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""), package.name


def test_nothing_imports_the_package_root() -> None:
    offenders = []
    for path in MODULES:
        if path.parent == SOURCE or path.parent.name in ("cli", "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "bowsprit":
                names = {alias.name for alias in node.names}
                if not all((SOURCE / name).is_dir() or name == "__version__" for name in names):
                    offenders.append(str(path.relative_to(ROOT)))
    assert offenders == []


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """What a module imports when it is loaded: not for types alone, not inside functions."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        for node in ast.iter_child_nodes(pending.pop()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name if name in modules else node.module for name in names}
            pending.append(node)
    return found & modules.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {".".join(path.relative_to(SOURCE.parent).with_suffix("").parts): path for path in MODULES}
    left = {name: _imports(path, modules) for name, path in modules.items()}
    while leaves := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in leaves}
    assert left == {}


def test_layer_contract_holds() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("word", ["/work/", "../shared", "pypi" + ".org", "pythonhosted" + ".org"])
def test_the_project_speaks_of_itself_alone(word: str) -> None:
    result = subprocess.run(
        ["git", "grep", "-lF", word, "--", ".", ":!tests/project"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.split() == []
