"""Strategy: what a kind does beyond being stored (upstream rest.RESTCreateStrategy and friends).

All hooks but the async ones are pure: objects in, objects or errors out. Objects are in the resource's storage version
("hub") unless a hook says otherwise. A kind subclasses Strategy and overrides what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_subdomain

if TYPE_CHECKING:
    from bowsprit.apiserver.request import RequestContext

Finish = Callable[[bool], None]  # called with True when the write was stored, False when it failed


class Strategy:
    """The behaviour of one kind; this base stores anything that has valid metadata."""

    allow_create_on_update: bool = False  # PUT of an absent object creates it
    allow_unconditional_update: bool = True  # PUT without resourceVersion overwrites
    orphans_by_default: bool = False  # deletion without a propagation policy orphans the dependents
    orphan_warning: str = ""  # sent when a deletion orphans the dependents because nobody said otherwise
    deletes_to_object: bool = (
        False  # an immediate DELETE answers the object instead of a Status (upstream ReturnDeletedObject)
    )
    spec_bumps_generation: bool = True  # generation 1 at create, +1 when anything but metadata and status changes
    has_generation: bool = False  # the kind uses metadata.generation at all
    generation_ignores: frozenset[str] = frozenset({"metadata", "status"})  # members whose change is no new generation
    # Deletion of an object that stays sets deletionGracePeriodSeconds and bumps the generation (Namespace, CRD: neither).
    marks_grace_period: bool = True
    field_refusal: str = (
        ""  # what an unknown field selector is told, if not the usual; {field} and {quoted} stand for it
    )

    # FieldsV1 of what this endpoint puts back, so that nobody comes to own it here (upstream GetResetFields); None: the status
    # on the main endpoint of a kind that has one, the spec on that of its status.
    reset_fields: Mapping[str, Any] | None = None

    def default(self, obj: Obj) -> None:
        """Sets defaults in place. `obj` is in the version of the request (see obj["apiVersion"]); also run on objects read
        through another version."""

    def validate_name(self, name: str) -> list[str]:
        """What is wrong with metadata.name (texts as in machinery.validation)."""
        return is_dns1123_subdomain(name)

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        """Clears what a client may not set (status), sets what the server decides."""

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        """Restores what this endpoint may not change (status on the main resource)."""

    def validate(self, obj: Obj) -> list[FieldError]:
        """Errors of an object to be created (metadata is validated by the registry)."""
        return []

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        """Errors of a change (metadata is validated by the registry)."""
        return []

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        """Texts for Warning headers; `old` is None on create."""
        return []

    def bumps_generation(self, new: Obj, old: Obj) -> bool:
        """Whether a change beside the spec makes a new generation, too."""
        return False

    def canonicalize(self, obj: Obj) -> None:
        """Last normalisation after validation."""

    def selectable_fields(self, obj: Obj) -> Mapping[str, str]:
        """Fields usable in fieldSelector besides metadata.name and metadata.namespace; must hold every supported label."""
        return {}

    def selectable_field_names(self) -> frozenset[str]:
        """The labels that `selectable_fields` gives."""
        return frozenset()

    # -- deletion ------------------------------------------------------------------------------------------------

    def grace_period(self, obj: Obj, requested: int | None, ctx: RequestContext) -> int | None:
        """Seconds of graceful deletion, None if the kind knows none (upstream RESTGracefulDeleteStrategy).

        0 removes at once; n > 0 sets deletionTimestamp = now + n and leaves the object to its node.
        """
        return None

    def mark_deleting(self, obj: Obj, ctx: RequestContext) -> None:
        """Called in addition to setting deletionTimestamp (Namespace: status.phase = Terminating)."""

    def may_vanish(self, obj: Obj) -> bool:
        """Whether an object without metadata.finalizers may be removed (Namespace: spec.finalizers is empty)."""
        return True

    def validate_delete(self, obj: Obj, ctx: RequestContext) -> None:
        """Raises StatusError (usually forbidden) to protect an object from deletion."""

    # -- hooks that may wait: allocation and bookkeeping in other objects -----------------------------------------------

    async def begin_create(self, obj: Obj, ctx: RequestContext) -> Finish | None:
        """After validation, before the write: allocate (ClusterIP). The returned callable learns whether the write happened."""
        return None

    async def begin_update(self, new: Obj, old: Obj, ctx: RequestContext) -> Finish | None:
        """As begin_create, for updates. Runs on dry run too (ctx.dry_run): then allocate nothing for good."""
        return None

    async def after_create(self, obj: Obj, ctx: RequestContext) -> None:
        """After the write; not on dry run."""

    async def after_update(self, obj: Obj, ctx: RequestContext) -> None:
        """After the write; not on dry run."""

    async def before_delete(self, obj: Obj, ctx: RequestContext) -> None:
        """Before an object is removed for good; not on dry run. Raises StatusError to refuse."""

    async def after_delete(self, obj: Obj, ctx: RequestContext) -> None:
        """After an object is removed for good (release allocations); not on dry run."""
