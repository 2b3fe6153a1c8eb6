"""What a process sees of this host: everything, read-only, with the pod's volumes at their paths. Made with bubblewrap.

A mount point that does not exist cannot be made in a read-only tree, so each folder on the way to one is put together anew:
a temporary file system with the folder's own entries bound into it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DEVICES = ("/dev", "/proc")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder, or a file, of this host at a path of the process."""

    source: Path
    target: str
    read_only: bool


def arguments(mounts: list[Mount], workdir: str, environment: Mapping[str, str]) -> list[str]:
    """bubblewrap's arguments before the command."""
    made = ["--die-with-parent", "--new-session", "--unshare-ipc"]
    wanted = sorted({_real(mount.target): mount for mount in mounts}.items())
    made += _folder("/", [target for target, _ in wanted], {t for t, mount in wanted if mount.source.is_file()})
    made += ["--dev", "/dev", "--proc", "/proc"]
    for target, mount in wanted:
        made += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), target]
    for folder in _hidden(workdir, [target for target, _ in wanted]):
        made += ["--ro-bind", folder, folder]
    made += ["--clearenv"]
    for key, value in environment.items():
        made += ["--setenv", key, value]
    return [*made, "--chdir", workdir]


def _real(path: str) -> str:
    """The path without symbolic links on the way, such as /var/run."""
    return os.path.realpath(path)


def _hidden(workdir: str, targets: list[str]) -> list[str]:
    """Folders that lie below a volume, but without which no command starts: its own, and those of this interpreter."""
    needed = {_real(path) for path in (workdir, sys.prefix, sys.base_prefix, *sys.path) if os.path.isdir(path)}
    hidden = {path for path in needed if any(path.startswith(f"{target}/") for target in targets)}
    return sorted(path for path in hidden if not any(path.startswith(f"{other}/") for other in hidden))


def _folder(path: str, targets: list[str], files: set[str]) -> list[str]:
    """A folder in which mount points are needed: its own entries, and the way to the mount points (bubblewrap makes files)."""
    made = ["--tmpfs", path]
    inside = path if path == "/" else f"{path}/"
    on_the_way: dict[str, list[str]] = {}
    for target in targets:
        if target.startswith(inside) and target != path:
            on_the_way.setdefault(inside + target[len(inside) :].partition("/")[0], []).append(target)
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        entries = []
    for entry in entries:
        if entry.path in _DEVICES or entry.path in on_the_way:
            continue
        if entry.is_symlink():
            made += ["--symlink", os.readlink(entry.path), entry.path]
        elif entry.is_dir() or entry.is_file():
            made += ["--ro-bind-try", entry.path, entry.path]
    for child, deeper in on_the_way.items():
        further = [target for target in deeper if target != child]
        if further:
            made += _folder(child, further, files)
        elif child not in files:
            made += ["--dir", child]
    return made
