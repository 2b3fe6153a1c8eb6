"""Objects of an older storage version, brought to the current one when the server starts.

What is stored is answered as it is, so all of it must be in the storage version. An app that has moved on to another one
converts what it finds, once.
"""

from __future__ import annotations

import logging

from bowsprit.apiserver.collection import Collection
from bowsprit.extension.errors import ExtensionError
from bowsprit.machinery.errors import StatusError
from bowsprit.store.protocol import RevisionMismatchError

logger = logging.getLogger("bowsprit.extension")


async def migrate(collection: Collection) -> int:
    """Converts what is stored in another version; how many objects. Raises ExtensionError when one cannot be."""
    resource = collection.resource
    versions = {version.gvk.api_version: version for version in resource.versions}
    count = 0
    for item in collection.cacher.items(resource.key_prefix):
        obj = collection.decode(item)
        stored = obj["apiVersion"]
        if stored == resource.storage_version:
            continue
        place = f"{resource.gr} {item.key.removeprefix(resource.key_prefix)}"
        version = versions.get(stored)
        if version is None:
            raise ExtensionError(
                f"{place} is stored as {stored}, which the app no longer has",
                reason="UnknownStoredVersion",
                hint=f"declare {stored} again (served=False) with conversions, start once, then remove it",
            )
        try:
            await collection.put(collection.to_hub(version, obj), item.revision)
        except StatusError as failure:
            raise ExtensionError(
                f"{place} cannot be converted: {failure.message}", reason="ConversionFailed"
            ) from failure
        except RevisionMismatchError:
            continue  # another server of the same store was faster
        count += 1
    if count:
        logger.warning("%d objects of %s were converted to %s", count, resource.gr, resource.storage_version)
    return count
