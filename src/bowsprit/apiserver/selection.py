"""Which objects of a collection a list, watch or deletecollection is about: namespace, name, labels, fields."""

from __future__ import annotations

from bowsprit.apiserver.cacher import Item
from bowsprit.apiserver.collection import Collection
from bowsprit.machinery.errors import bad_request
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.selectors import FieldSelector, LabelSelector, SelectorError

_METADATA_FIELDS = frozenset({"metadata.name", "metadata.namespace"})


class Selection:
    """A parsed and checked selection. `prefix` is what the keys of all candidates begin with."""

    __slots__ = ("_collection", "_fields", "_key", "_labels", "key", "namespace", "prefix")

    def __init__(self, collection: Collection, namespace: str, label_selector: str, field_selector: str) -> None:
        """Raises 400 for selectors that cannot be parsed or name fields the kind cannot be selected by."""
        self._collection = collection
        self.namespace = namespace if collection.resource.namespaced else ""
        self.prefix = collection.prefix(namespace)
        self.key = (self.prefix, label_selector, field_selector)  # equal for equal selections of one collection
        self._labels: LabelSelector | None = None
        self._fields: FieldSelector | None = None
        self._key: str | None = None
        try:
            if label_selector:
                labels = LabelSelector.parse(label_selector)
                self._labels = None if labels.is_empty() else labels
            if field_selector:
                self._take_fields(FieldSelector.parse(field_selector))
        except SelectorError as failure:
            raise bad_request(str(failure)) from None

    def _take_fields(self, fields: FieldSelector) -> None:
        resource = self._collection.resource
        own = resource.strategy.selectable_field_names()
        for field in fields.fields():
            if field in _METADATA_FIELDS or field in own:
                continue
            refused = resource.strategy.field_refusal
            if refused:
                raise bad_request(refused.format(field=field, quoted=quote(field)))
            if own or resource.custom:
                raise bad_request(f"field label not supported: {field}")
            raise bad_request(
                f'{quote(field)} is not a known field selector: only "metadata.name", "metadata.namespace"'
            )
        if fields.is_empty():
            return
        self._fields = fields
        name = fields.requires_exact("metadata.name")
        if name and (self.namespace or not resource.namespaced):
            self._key = resource.key(self.namespace, name)

    @property
    def everything(self) -> bool:
        """Whether all candidates are meant."""
        return self._labels is None and self._fields is None

    def covers(self, key: str) -> bool:
        """Whether a key lies in the namespace that is meant."""
        return key.startswith(self.prefix)

    def matches(self, item: Item) -> bool:
        """Whether an item that `covers` is meant."""
        if self._key is not None and item.key != self._key:
            return False
        if self._labels is None and self._fields is None:
            return True
        labels, fields = self._collection.cacher.attributes(item)
        return (self._labels is None or self._labels.matches(labels)) and (
            self._fields is None or self._fields.matches(fields)
        )

    def only(self) -> str | None:
        """The one key that can match, if the selection names it."""
        return self._key
