"""Writing kubeconfig files by kubectl's rules: a stanza changes where it lives, a new one goes to the first existing file
of the list, else the last. Files are locked (``<file>.lock``), replaced atomically, and readable by their owner alone.

Upstream: clientcmd.ModifyConfig; the lock with back-off is kind's.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from bowsprit.client.kubeconfig import SECTIONS, KubeconfigError, entries, kubeconfig_paths, read_document
from bowsprit.machinery.objects import Obj

_LOCK_DELAYS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)


class KubeconfigFile:
    """The kubeconfig of a user as a thing to edit; every method is one locked transaction."""

    def __init__(
        self,
        explicit: Path | str | None = None,
        environ: Mapping[str, str] = os.environ,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._paths = kubeconfig_paths(explicit, environ)
        self._sleep = sleep

    @property
    def default_path(self) -> Path:
        """Where new stanzas go."""
        return next((path for path in self._paths if path.exists()), self._paths[-1])

    def set_context(
        self, name: str, cluster: Obj, user: Obj, *, namespace: str | None = None, switch: bool = True
    ) -> Path:
        """Create or replace the context, cluster and user called ``name``; answers the file the context is in."""
        context: Obj = {"cluster": name, "user": name}
        if namespace:
            context["namespace"] = namespace
        with self._locked():
            documents = self._read()
            target = self._home_of(documents, "contexts", name)
            for section, body in (("clusters", cluster), ("users", user), ("contexts", context)):
                _put(documents[self._home_of(documents, section, name)], section, name, body)
            if switch:
                documents[self._home_of_current(documents)]["current-context"] = name
            self._write(documents)
        return target

    def remove_context(self, name: str) -> list[Path]:
        """Remove the context, cluster and user called ``name`` wherever they are, and a current-context that names it.

        Answers the files that changed. Other people's stanzas stay as they are.
        """
        with self._locked():
            documents = self._read()
            changed = []
            for path, document in documents.items():
                removed = [_drop(document, section, name) for section in SECTIONS]
                if document.get("current-context") == name:
                    document["current-context"] = ""
                    removed.append(True)
                if any(removed):
                    changed.append(path)
            self._write({path: documents[path] for path in changed})
        return changed

    def copy_context(self, source: str, name: str, cluster_changes: Obj, *, switch: bool = False) -> Path:
        """Add the context ``name``: the source's user and namespace, and a copy of its cluster with changes merged in.

        It goes into the file of the source's cluster, so that relative certificate paths stay valid. An existing context
        or cluster of that name is replaced only if its proxy has the same host as the new one's; KubeconfigError otherwise.
        """
        with self._locked():
            documents = self._read()
            context = self._stanza(documents, "contexts", source)
            cluster_name = str(context.get("cluster") or "")
            cluster = _merged(self._stanza(documents, "clusters", cluster_name), cluster_changes)
            target = self._home_of(documents, "clusters", cluster_name)
            self._refuse_foreign(documents, name, cluster)
            for section in ("contexts", "clusters"):
                _drop(documents[self._home_of(documents, section, name)], section, name)
            _put(documents[target], "clusters", name, cluster)
            _put(documents[target], "contexts", name, {**context, "cluster": name})
            if switch:
                documents[self._home_of_current(documents)]["current-context"] = name
            self._write(documents)
        return target

    def change_cluster(self, context: str, changes: Obj) -> Obj:
        """Merge changes (None deletes a key) into the context's cluster, where it lives; answers the previous values."""
        with self._locked():
            documents = self._read()
            name = str(self._stanza(documents, "contexts", context).get("cluster") or "")
            cluster = self._stanza(documents, "clusters", name)
            _put(documents[self._home_of(documents, "clusters", name)], "clusters", name, _merged(cluster, changes))
            self._write(documents)
        return {key: cluster.get(key) for key in changes}

    def restore_cluster(self, context: str, ours: Obj, previous: Obj) -> bool:
        """Undo `change_cluster` where the cluster still has our values; False, and no change, where it does not."""
        with self._locked():
            documents = self._read()
            name = str(self._stanza(documents, "contexts", context).get("cluster") or "")
            cluster = self._stanza(documents, "clusters", name)
            if any(cluster.get(key) != value for key, value in ours.items()):
                return False
            _put(documents[self._home_of(documents, "clusters", name)], "clusters", name, _merged(cluster, previous))
            self._write(documents)
        return True

    def remove_copy(self, name: str, ours: Obj) -> bool:
        """Undo `copy_context` where the copied cluster still has our values: its context and cluster go, the user stays."""
        with self._locked():
            documents = self._read()
            found = entries(
                documents.get(self._home_of(documents, "clusters", name), {}), "clusters", self.default_path
            )
            cluster = found.get(name, {})
            if not cluster or any(cluster.get(key) != value for key, value in ours.items()):
                return False
            for document in documents.values():
                _drop(document, "contexts", name)
                _drop(document, "clusters", name)
                if document.get("current-context") == name:
                    document["current-context"] = ""
            self._write(documents)
        return True

    def _stanza(self, documents: dict[Path, Obj], section: str, name: str) -> Obj:
        home = self._home_of(documents, section, name)
        found = entries(documents.get(home, {}), section, home)
        if name not in found:
            raise KubeconfigError(f'{SECTIONS[section]} "{name}" does not exist')
        return found[name]

    def _refuse_foreign(self, documents: dict[Path, Obj], name: str, cluster: Obj) -> None:
        proxy = urlsplit(str(cluster.get("proxy-url") or "")).hostname
        for path, document in documents.items():
            existing = entries(document, "clusters", path).get(name)
            taken = existing is not None or name in entries(document, "contexts", path)
            if taken and (not proxy or urlsplit(str((existing or {}).get("proxy-url") or "")).hostname != proxy):
                raise KubeconfigError(
                    f'{path} already has a context or cluster "{name}" that is not ours', hint="choose another name"
                )

    def _home_of(self, documents: dict[Path, Obj], section: str, name: str) -> Path:
        for path, document in documents.items():
            if name in entries(document, section, path):
                return path
        return self.default_path

    def _home_of_current(self, documents: dict[Path, Obj]) -> Path:
        return next(
            (path for path, document in documents.items() if document.get("current-context")), self.default_path
        )

    def _read(self) -> dict[Path, Obj]:
        return {path: read_document(path) for path in self._paths}

    def _write(self, documents: dict[Path, Obj]) -> None:
        for path, document in documents.items():
            if document and document != read_document(path):
                write_document(path, document)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            for path in sorted(set(self._paths)):  # one order for everybody: no deadlock between two list users
                if path.parent.is_dir() or path == self.default_path:
                    stack.enter_context(_lock(path, self._sleep))
            yield


def write_document(path: Path, document: Obj) -> None:
    """Replace a kubeconfig file atomically, mode 0600; a symbolic link is followed, not replaced."""
    target = Path(os.path.realpath(path))
    full = {"apiVersion": "v1", "kind": "Config", **document}
    text = yaml.safe_dump(full, sort_keys=False, default_flow_style=False, width=2**20)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def _lock(path: Path, sleep: Callable[[float], None]) -> Iterator[None]:
    """Hold ``<path>.lock``, the file that kubectl and kind also take."""
    lock = path.with_name(path.name + ".lock")
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    for delay in (*_LOCK_DELAYS, None):
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError:
            if delay is None:
                raise KubeconfigError(
                    f"kubeconfig {path} is locked by {lock}",
                    hint=f"wait for the other program, or remove {lock} if none is running",
                ) from None
            sleep(delay)
        except OSError as exc:
            raise KubeconfigError(f"cannot lock kubeconfig {path}: {exc.strerror}") from exc
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _merged(body: Obj, changes: Obj) -> Obj:
    return {key: value for key, value in {**body, **changes}.items() if value is not None}


def _put(document: Obj, section: str, name: str, body: Obj) -> None:
    listed = document[section] = document.get(section) or []
    for item in listed:
        if item.get("name") == name:
            item[SECTIONS[section]] = body
            return
    listed.append({"name": name, SECTIONS[section]: body})


def _drop(document: Obj, section: str, name: str) -> bool:
    listed = document.get(section) or []
    kept = [item for item in listed if item.get("name") != name]
    if len(kept) == len(listed):
        return False
    document[section] = kept
    return True
