"""How a store is named on a command line: `memory`, `sqlite` or `sqlite:PATH`."""

from __future__ import annotations

from pathlib import Path

from bowsprit.store.protocol import Store, StoreError


async def open_store(spec: str, default_path: Path | None = None) -> Store:
    """The store that `spec` names; `sqlite` without a path uses `default_path`. Raises StoreError."""
    sort, _, path = spec.partition(":")
    if sort == "memory" and not path:
        from bowsprit.store.memory import MemoryStore

        return MemoryStore()
    if sort == "sqlite" and (path or default_path):
        from bowsprit.store.sqlite import SQLiteStore

        return await SQLiteStore.open(path or default_path or "")
    raise StoreError(f"unknown store {spec!r}: use memory, sqlite or sqlite:PATH")
