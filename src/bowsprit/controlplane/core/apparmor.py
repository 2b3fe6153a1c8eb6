"""AppArmor profiles given by annotation become fields (upstream applyAppArmorVersionSkew, KEP-24)."""

from __future__ import annotations

from bowsprit.apiserver.request import RequestContext
from bowsprit.machinery import objects
from bowsprit.machinery.fielderrors import path
from bowsprit.machinery.objects import Obj

PREFIX = "container.apparmor.security.beta.kubernetes.io/"
_LOCALHOST = "localhost/"
_MAX_PROFILE = 4095  # a Linux path


def sync_profiles(pod: Obj, ctx: RequestContext) -> None:
    """Set the profile of each container that has the annotation and no field, with a warning; in place."""
    spec, annotations = pod["spec"], objects.annotations(pod)
    if (spec.get("os") or {}).get("name") == "windows":
        return
    pod_profile = (spec.get("securityContext") or {}).get("appArmorProfile")
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            key = PREFIX + container.get("name", "")
            if key not in annotations or (container.get("securityContext") or {}).get("appArmorProfile"):
                continue
            profile = _profile(annotations[key])
            if profile is not None and profile == pod_profile:
                continue
            if profile is not None:
                container["securityContext"] = {**(container.get("securityContext") or {}), "appArmorProfile": profile}
            where = path("metadata", "annotations").key(key)
            ctx.warn(f'{where}: deprecated since v1.30; use the "appArmorProfile" field instead')


def _profile(annotation: str) -> Obj | None:
    """The field that an annotation stands for, None if it is not valid."""
    if annotation == "unconfined":
        return {"type": "Unconfined"}
    if annotation == "runtime/default":
        return {"type": "RuntimeDefault"}
    name = annotation.removeprefix(_LOCALHOST)
    if name == annotation or not name or name != name.strip() or len(name) > _MAX_PROFILE:
        return None
    return {"type": "Localhost", "localhostProfile": name}
