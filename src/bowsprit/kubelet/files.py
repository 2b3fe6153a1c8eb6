"""The files that were copied into simulated containers (``kubectl cp``): in memory, few and small, gone with the pod. No I/O."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator

LARGEST = 16 << 20  # bytes of all files of a container
_MAX_FILES = 4096


class FileError(OSError):
    """Something that cannot be done; the text is the program's message."""


class Files:
    """One container's files by absolute path; folders exist where files are, and a few always."""

    def __init__(self, hostname: str = "") -> None:
        self._files: dict[str, bytes] = {"/etc/hostname": f"{hostname}\n".encode(), "/dev/null": b""}
        self._folders = {"/", *(f"/{name}" for name in ("bin", "dev", "etc", "proc", "root", "tmp", "var"))}

    def read(self, path: str) -> bytes:
        """The content. Raises FileError."""
        where = absolute(path)
        if self.is_folder(where):
            raise FileError("read error: Is a directory")
        if where not in self._files:
            raise FileError("No such file or directory")
        return self._files[where]

    def write(self, path: str, data: bytes) -> None:
        """Make or replace a file, and the folders above it. Raises FileError."""
        where = absolute(path)
        if where == "/dev/null":
            return
        others = sum(len(content) for name, content in self._files.items() if name != where)
        if others + len(data) > LARGEST or len(self._files) >= _MAX_FILES:
            raise FileError("No space left on device")
        self._files[where] = data
        self.make_folder(posixpath.dirname(where))

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        where = absolute(path)
        while where not in self._folders and len(self._folders) < _MAX_FILES:
            self._folders.add(where)
            where = posixpath.dirname(where)

    def remove(self, path: str) -> bool:
        """Remove a file or everything below a folder; whether there was something."""
        where = absolute(path)
        gone = [name for name in self._files if name == where or name.startswith(f"{where}/")]
        for name in gone:
            del self._files[name]
        folders = {name for name in self._folders if name == where or name.startswith(f"{where}/")}
        self._folders -= folders
        return bool(gone or folders)

    def is_file(self, path: str) -> bool:
        """Whether there is a file."""
        return absolute(path) in self._files

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder."""
        return absolute(path) in self._folders

    def names(self, path: str) -> list[str]:
        """The names in a folder, or the file's own. Raises FileError."""
        where = absolute(path)
        if where in self._files:
            return [path]
        if where not in self._folders:
            raise FileError("No such file or directory")
        inside = where.rstrip("/") + "/"
        below = [name[len(inside) :] for name in (*self._files, *self._folders) if name.startswith(inside)]
        return sorted({name.partition("/")[0] for name in below} - {""})

    def unpack(self, archive: bytes, folder: str) -> None:
        """``tar x``. Raises FileError."""
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
                for member in packed:
                    where = posixpath.join(absolute(folder), member.name.lstrip("/"))
                    if member.isdir():
                        self.make_folder(where)
                    elif member.isfile() and (content := packed.extractfile(member)) is not None:
                        self.write(where, content.read(LARGEST + 1))
        except (tarfile.TarError, EOFError) as exc:
            raise FileError(f"invalid tar magic or corrupt archive: {exc}") from exc

    def pack(self, path: str) -> bytes:
        """``tar c``: a file, or a folder with all below it. Raises FileError."""
        where = absolute(path)
        if where not in self._files and where not in self._folders:
            raise FileError("No such file or directory")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as packed:
            for name, content in self._below(where):
                member = tarfile.TarInfo(name.lstrip("/"))
                if content is None:
                    member.type, member.mode = tarfile.DIRTYPE, 0o755
                    packed.addfile(member)
                else:
                    member.size, member.mode = len(content), 0o644
                    packed.addfile(member, io.BytesIO(content))
        return buffer.getvalue()

    def _below(self, where: str) -> Iterator[tuple[str, bytes | None]]:
        inside = where.rstrip("/") + "/"
        for name in sorted(self._folders):
            if name == where or name.startswith(inside):
                yield name, None
        for name, content in sorted(self._files.items()):
            if name == where or name.startswith(inside):
                yield name, content


def absolute(path: str) -> str:
    """The path from the root, without dots; programs run in ``/``."""
    return posixpath.normpath(posixpath.join("/", path)).replace("//", "/")
