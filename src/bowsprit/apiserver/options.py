"""Query parameters of the verbs: metav1.ListOptions and the Create/Update/Patch/DeleteOptions, with upstream's checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bowsprit.apiserver.objectmeta import validate_field_manager
from bowsprit.apiserver.request import RequestContext, parse_bool
from bowsprit.machinery import fielderrors
from bowsprit.machinery.errors import bad_request, invalid
from bowsprit.machinery.fielderrors import FieldError, forbidden, not_supported, path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupKind
from bowsprit.machinery.objects import Obj

META_GROUP = "meta.k8s.io"
FIELD_VALIDATION = ("", "Ignore", "Strict", "Warn")
_FIELD_VALIDATION_SHOWN = ("", "Ignore", "Strict", "Warn")


def parse_int(text: str) -> int:
    """An integer parameter; 400 with strconv's text."""
    if not text:
        return 0
    sign = text[1:] if text[0] in "+-" else text
    if not sign.isascii() or not sign.isdigit():
        raise bad_request(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise bad_request(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


def parse_revision(text: str) -> int:
    """A resourceVersion; raises ValueError with upstream's text."""
    if text in ("", "0"):
        return 0
    if not text.isascii() or not text.isdigit():
        problem = "invalid syntax"
    elif int(text) >= 2**64:
        problem = "value out of range"
    else:
        return int(text)
    error = fielderrors.invalid(path("resourceVersion"), text, f"strconv.ParseUint: parsing {quote(text)}: {problem}")
    raise ValueError(str(error))


@dataclass(slots=True)
class ListOptions:
    """metav1.ListOptions of one request."""

    label_selector: str = ""
    field_selector: str = ""
    watch: bool = False
    allow_watch_bookmarks: bool = False
    resource_version: str = ""
    resource_version_match: str = ""
    timeout_seconds: int | None = None
    limit: int = 0
    continue_token: str = ""
    send_initial_events: bool | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> ListOptions:
        """Raises 400 for what cannot be parsed."""
        if not query:
            return cls()
        get = query.get
        initial = get("sendInitialEvents")
        timeout = get("timeoutSeconds")
        return cls(
            get("labelSelector", ""),
            get("fieldSelector", ""),
            "watch" in query and parse_bool(query["watch"]),
            "allowWatchBookmarks" in query and parse_bool(query["allowWatchBookmarks"]),
            get("resourceVersion", ""),
            get("resourceVersionMatch", ""),
            parse_int(timeout) if timeout is not None else None,
            parse_int(get("limit", "")),
            get("continue", ""),
            parse_bool(initial) if initial is not None else None,
        )

    def check(self, *, watch: bool) -> None:
        """Upstream ValidateListOptions. Raises 422."""
        where = path("resourceVersionMatch")
        errors: list[FieldError] = []
        match = self.resource_version_match
        if watch:
            if self.send_initial_events is None:
                if match or self.continue_token:
                    errors += self._check_watch_match()
            else:
                if match != "NotOlderThan":
                    errors.append(
                        forbidden(where, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
                    )
                if self.continue_token:
                    errors.append(forbidden(where, "resourceVersionMatch is forbidden when continue is provided"))
        else:
            if self.send_initial_events is not None:
                errors.append(forbidden(path("sendInitialEvents"), "sendInitialEvents is forbidden for list"))
            if match:
                if not self.resource_version:
                    errors.append(
                        forbidden(where, "resourceVersionMatch is forbidden unless resourceVersion is provided")
                    )
                if self.continue_token:
                    errors.append(forbidden(where, "resourceVersionMatch is forbidden when continue is provided"))
                if match not in ("Exact", "NotOlderThan"):
                    errors.append(not_supported(where, match, ["Exact", "NotOlderThan", ""]))
                if match == "Exact" and self.resource_version == "0":
                    errors.append(forbidden(where, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
        if errors:
            raise invalid(GroupKind(META_GROUP, "ListOptions"), "", errors)

    def _check_watch_match(self) -> list[FieldError]:
        where = path("resourceVersionMatch")
        if self.continue_token:
            return [forbidden(where, "resourceVersionMatch is forbidden when continue is provided")]
        return [forbidden(where, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")]


def apply_write_options(
    ctx: RequestContext, kind: str, query: Mapping[str, str], *, apply_patch: bool = False, patch: bool = False
) -> Obj:
    """Reads dryRun, fieldManager, fieldValidation (and force) into the context; gives the options object for admission.

    Raises 422 as upstream ValidateCreateOptions/UpdateOptions/PatchOptions.
    """
    options: Obj = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    ctx.field_validation = "Warn"
    if query:
        getall = getattr(query, "getall", None)
        dry_run = list(getall("dryRun", [])) if getall else [query[key] for key in ("dryRun",) if key in query]
        manager = query.get("fieldManager", "")
        validation = query.get("fieldValidation", "")
        force = query.get("force")
        errors: list[FieldError] = []
        if patch:
            if apply_patch and not manager:
                errors.append(fielderrors.required(path("fieldManager"), "is required for apply patch"))
            if not apply_patch and force is not None:
                errors.append(forbidden(path("force"), "may not be specified for non-apply patch"))
        errors += validate_field_manager(manager, path("fieldManager"))
        errors += _check_dry_run(dry_run)
        if validation not in FIELD_VALIDATION:
            errors.append(not_supported(path("fieldValidation"), validation, _FIELD_VALIDATION_SHOWN))
        if errors:
            raise invalid(GroupKind(META_GROUP, kind), "", errors)
        if dry_run:
            options["dryRun"] = dry_run
            ctx.dry_run = True
        if manager:
            options["fieldManager"] = manager
            ctx.field_manager = manager
        if validation:
            options["fieldValidation"] = validation
            ctx.field_validation = validation
        if force is not None:
            options["force"] = parse_bool(force)
    elif apply_patch:
        raise invalid(
            GroupKind(META_GROUP, kind),
            "",
            [fielderrors.required(path("fieldManager"), "is required for apply patch")],
        )
    return options


def _check_dry_run(values: list[str]) -> list[FieldError]:
    if any(value != "All" for value in values):
        return [not_supported(path("dryRun"), values, ["All"])]
    return []


@dataclass(slots=True)
class DeleteOptions:
    """metav1.DeleteOptions. `uid` and `resource_version` are the preconditions."""

    grace_period_seconds: int | None = None
    orphan_dependents: bool | None = None
    propagation_policy: str | None = None
    dry_run: list[str] = field(default_factory=list)
    uid: str | None = None
    resource_version: str | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> DeleteOptions:
        getall = getattr(query, "getall", None)
        grace = query.get("gracePeriodSeconds")
        orphan = query.get("orphanDependents")
        return cls(
            parse_int(grace) if grace is not None else None,
            parse_bool(orphan) if orphan is not None else None,
            query.get("propagationPolicy"),
            list(getall("dryRun", [])) if getall else [],
        )

    @classmethod
    def from_obj(cls, obj: Obj) -> DeleteOptions:
        preconditions: Any = obj.get("preconditions") or {}
        return cls(
            obj.get("gracePeriodSeconds"),
            obj.get("orphanDependents"),
            obj.get("propagationPolicy"),
            obj.get("dryRun") or [],
            preconditions.get("uid"),
            preconditions.get("resourceVersion"),
        )

    def to_obj(self) -> Obj:
        """As admission sees it."""
        obj: Obj = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
        if self.grace_period_seconds is not None:
            obj["gracePeriodSeconds"] = self.grace_period_seconds
        preconditions = {"uid": self.uid, "resourceVersion": self.resource_version}
        preconditions = {key: value for key, value in preconditions.items() if value is not None}
        if preconditions:
            obj["preconditions"] = preconditions
        if self.orphan_dependents is not None:
            obj["orphanDependents"] = self.orphan_dependents
        if self.propagation_policy is not None:
            obj["propagationPolicy"] = self.propagation_policy
        if self.dry_run:
            obj["dryRun"] = self.dry_run
        return obj

    def check(self) -> None:
        """Upstream ValidateDeleteOptions. Raises 422."""
        errors: list[FieldError] = []
        policy = self.propagation_policy
        if self.orphan_dependents is not None and policy is not None:
            errors.append(
                fielderrors.invalid(
                    path("propagationPolicy"), policy, "orphanDependents and deletionPropagation cannot be both set"
                )
            )
        if policy is not None and policy not in ("Foreground", "Background", "Orphan"):
            errors.append(
                not_supported(path("propagationPolicy"), policy, ["Foreground", "Background", "Orphan", "nil"])
            )
        errors += _check_dry_run(self.dry_run)
        if errors:
            raise invalid(GroupKind(META_GROUP, "DeleteOptions"), "", errors)
