"""Finding an author's App: ``module:attribute`` or ``path/to/file.py:attribute``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from bowsprit.extension.app import App
from bowsprit.extension.errors import ExtensionError

INSTALLED = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parents[2]),
)
"""Below these lie installed packages and this one: nothing that an author changes."""
_FORM = "give MODULE:APP, for example hello:app or path/to/hello.py:app"


def load_app(spec: str, *, search: Path | None = None) -> App:
    """The App that `spec` names, checked. `search` is where modules are looked for first (default: the working directory).

    A package folder of the module's name with a file of that name in it counts as that file: what `extension new` makes.
    Raises ExtensionError.
    """
    place, _, attribute = spec.rpartition(":")
    if not place or not attribute:
        raise ExtensionError(f"{spec!r} does not name an app", reason="InvalidSpec", hint=_FORM)
    module = _load(place, search or Path.cwd())
    app = getattr(module, attribute, None)
    if app is None:
        found = [name for name, value in vars(module).items() if isinstance(value, App)]
        hint = f"it has {', '.join(found)}" if found else "it has no App"
        raise ExtensionError(f"{place} has no attribute {attribute!r}", reason="AppNotFound", hint=hint)
    if not isinstance(app, App):
        raise ExtensionError(f"{spec} is a {type(app).__name__}, not an App", reason="AppNotFound", hint=_FORM)
    app.check()
    return app


def source_of(spec: str, *, search: Path | None = None) -> Path | None:
    """The file of a spec's module; None if it is not a file below `search` or named by path."""
    place = spec.rpartition(":")[0]
    return _file(place, search or Path.cwd())


def _file(place: str, search: Path) -> Path | None:
    if place.endswith(".py"):
        return (search / place).resolve()
    relative = Path(*place.split("."))
    module = relative.name.replace("-", "_") + ".py"
    for candidate in (search / relative.with_suffix(".py"), search / relative / module):
        if candidate.is_file():
            return candidate.resolve()
    package = search / relative / "__init__.py"
    return package.resolve() if package.is_file() else None


def _load(place: str, search: Path) -> ModuleType:
    file = _file(place, search)
    try:
        if file is None:
            return _by_name(place, search)
        if not file.is_file():
            raise ExtensionError(f"{file} does not exist", reason="ModuleNotFound", hint=_FORM)
        return _by_file(file)
    except ExtensionError:
        raise
    except Exception as failure:
        raise ExtensionError(
            f"{place} cannot be imported: {type(failure).__name__}: {failure}",
            reason="ImportFailed",
            hint=_where(failure),
        ) from failure


def _by_name(place: str, search: Path) -> ModuleType:
    folder = str(search)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as failure:
        if failure.name is not None and (place == failure.name or place.startswith(f"{failure.name}.")):
            raise ExtensionError(
                f"there is no module {place!r} in {search} or on the Python path", reason="ModuleNotFound", hint=_FORM
            ) from failure
        raise


def _by_file(file: Path) -> ModuleType:
    """The module of a file, by its stem, with its folder on the path for what it imports."""
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = file.stem if file.stem != "__init__" else file.parent.name
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ExtensionError(f"{file} is no Python file", reason="ModuleNotFound", hint=_FORM)
    module = importlib.util.module_from_spec(spec)
    previous = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if previous is None:
            del sys.modules[name]
        else:
            sys.modules[name] = previous
        raise
    return module


def _where(failure: Exception) -> str:
    """The last line of the author's own that the failure came through."""
    if isinstance(failure, SyntaxError) and failure.filename:
        return f"see {failure.filename}:{failure.lineno}"
    trace, last = failure.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith((*INSTALLED, "<")):
            last = f"see {file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return last
