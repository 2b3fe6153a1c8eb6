"""Names of types and resources: group, version, kind, resource, and the REST paths made of them.

Upstream: k8s.io/apimachinery/pkg/runtime/schema.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class GroupVersion:
    """A group and version, written `apps/v1`, or `v1` for the core group (whose name is empty)."""

    group: str
    version: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @classmethod
    def parse(cls, text: str) -> GroupVersion:
        """Read an apiVersion; raises ValueError with upstream's text when it has more than one slash."""
        if not text or text == "/":
            return cls("", "")
        group, slash, version = text.partition("/")
        if not slash:
            return cls("", text)
        if "/" in version:
            raise ValueError(f"unexpected GroupVersion string: {text}")
        return cls(group, version)

    def with_kind(self, kind: str) -> GroupVersionKind:
        return GroupVersionKind(self.group, self.version, kind)

    def with_resource(self, resource: str) -> GroupVersionResource:
        return GroupVersionResource(self.group, self.version, resource)

    def __str__(self) -> str:
        return self.api_version


@dataclass(frozen=True, slots=True, order=True)
class GroupKind:
    """A kind without its version; prints as `Deployment.apps`, `Pod`."""

    group: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind


@dataclass(frozen=True, slots=True, order=True)
class GroupResource:
    """A resource without its version; prints as `deployments.apps`, `pods`."""

    group: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> GroupResource:
        """Read `deployments.apps` or `pods` (upstream ParseGroupResource)."""
        resource, _, group = text.partition(".")
        return cls(group, resource)

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


@dataclass(frozen=True, slots=True, order=True)
class GroupVersionKind:
    """The full name of a type; prints as `apps/v1, Kind=Deployment`."""

    group: str
    version: str
    kind: str

    @classmethod
    def parse(cls, api_version: str, kind: str) -> GroupVersionKind:
        gv = GroupVersion.parse(api_version)
        return cls(gv.group, gv.version, kind)

    @property
    def gv(self) -> GroupVersion:
        return GroupVersion(self.group, self.version)

    @property
    def gk(self) -> GroupKind:
        return GroupKind(self.group, self.kind)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.group}/{self.version}, Kind={self.kind}"


@dataclass(frozen=True, slots=True, order=True)
class GroupVersionResource:
    """The full name of a resource; prints as `apps/v1, Resource=deployments`."""

    group: str
    version: str
    resource: str

    @property
    def gv(self) -> GroupVersion:
        return GroupVersion(self.group, self.version)

    @property
    def gr(self) -> GroupResource:
        return GroupResource(self.group, self.resource)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.group}/{self.version}, Resource={self.resource}"


def group_version_path(gv: GroupVersion) -> str:
    """`/api/v1` for the core group, `/apis/<group>/<version>` for all others."""
    return f"/apis/{gv.group}/{gv.version}" if gv.group else f"/api/{gv.version}"


def resource_path(gvr: GroupVersionResource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """REST path of a collection, an object or a subresource; empty parts are left out.

    The parts are not percent-encoded: names that need it are refused by validation before they get here.
    """
    path = group_version_path(gvr.gv)
    if namespace:
        path += f"/namespaces/{namespace}"
    path += f"/{gvr.resource}"
    if name:
        path += f"/{name}"
    if subresource:
        path += f"/{subresource}"
    return path
