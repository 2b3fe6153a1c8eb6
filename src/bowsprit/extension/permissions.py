"""What an extension server may do in the core: the RBAC of its ServiceAccount, and of the people who use its kinds."""

from __future__ import annotations

from collections.abc import Iterable

from bowsprit.extension.app import App
from bowsprit.extension.coreadmission import REQUIRED
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")
AUTH_DELEGATOR = "system:auth-delegator"
DELEGATED = (
    ("create", GroupResource("authentication.k8s.io", "tokenreviews")),
    ("create", GroupResource("authorization.k8s.io", "subjectaccessreviews")),
)
"""What `system:auth-delegator` allows."""


def followed() -> list[GroupResource]:
    """What the library's admission lists and watches in the core."""
    found = {resource for needed in REQUIRED.values() for resource in needed}
    return sorted(found, key=lambda gr: (gr.group, gr.resource))


def library_rules() -> list[Obj]:
    """Reading what admission goes by."""
    return _grouped((gr.group, gr.resource) for gr in followed())


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[Obj]:
    groups: dict[str, list[str]] = {}
    for group, resource in pairs:
        groups.setdefault(group, []).append(resource)
    return [{"apiGroups": [group], "resources": resources, "verbs": list(READ)} for group, resources in groups.items()]


def kind_rules(app: App, *, verbs: Iterable[str] | None = None, namespaced_only: bool = False) -> list[Obj]:
    """Every resource with the verbs that it serves (of `verbs`, when given), subresources included."""
    wanted = None if verbs is None else set(verbs)
    rules: dict[tuple[str, str], Obj] = {}
    for resource in app.resources:
        if namespaced_only and not resource.namespaced:
            continue
        served = [verb for verb in sorted(resource.verbs) if wanted is None or verb in wanted]
        if served:
            names = [resource.plural, *(f"{resource.plural}/{each}" for each in _kept(resource.subresources))]
            rules[resource.group, resource.plural] = {
                "apiGroups": [resource.group],
                "resources": names,
                "verbs": served,
            }
        connected = [each for each in resource.subresources if each not in ("status", "scale")]
        if connected and (wanted is None or wanted & set(WRITE)):
            rules[resource.group, f"{resource.plural}/"] = {
                "apiGroups": [resource.group],
                "resources": [f"{resource.plural}/{each}" for each in connected],
                "verbs": ["create", "get"],
            }
    return [rules[key] for key in sorted(rules)]


def _kept(subresources: Iterable[str]) -> list[str]:
    return [each for each in subresources if each in ("status", "scale")]
