"""Rules for security contexts, of pods and of containers, and what each operating system has of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bowsprit.controlplane.core.pathrules import local_path_errors
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_subdomain

_LARGEST_ID = 2147483647
_ID_RANGE = f"must be between 0 and {_LARGEST_ID}, inclusive"
_LONGEST_SYSCTL = 253
_SYSCTL = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
_LONGEST_PROFILE = 4095
_LARGEST_CREDENTIALS = 64 << 10
_LONGEST_DOMAIN, _LONGEST_USER = 256, 104
_NETBIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}')
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_PROFILES = ["Localhost", "RuntimeDefault", "Unconfined"]
_NOT_ON_WINDOWS = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)
_NOT_IN_WINDOWS_PODS = (
    ("securityContext", "appArmorProfile"),
    ("securityContext", "seLinuxOptions"),
    ("hostUsers",),
    ("hostPID",),
    ("hostIPC",),
    ("securityContext", "seccompProfile"),
    ("securityContext", "fsGroup"),
    ("securityContext", "fsGroupChangePolicy"),
    ("securityContext", "sysctls"),
    ("shareProcessNamespace",),
    ("securityContext", "runAsUser"),
    ("securityContext", "runAsGroup"),
    ("securityContext", "supplementalGroups"),
    ("securityContext", "supplementalGroupsPolicy"),
    ("securityContext", "seLinuxChangePolicy"),
)


def _containers(spec: Obj, where: Path) -> Iterator[tuple[Obj, Path]]:
    for kind in _CONTAINERS:
        for index, container in enumerate(spec.get(kind) or ()):
            yield container.get("securityContext") or {}, where.child(kind).index(index).child("securityContext")


# -- pods ------------------------------------------------------------------------------------------------------------------


def pod_security_errors(spec: Obj, where: Path) -> list[FieldError]:
    """The PodSecurityContext, and what stands beside it in the spec."""
    context, place = spec.get("securityContext") or {}, where.child("securityContext")
    errors = _id_errors(context, place, ("fsGroup", "runAsUser", "runAsGroup"))
    for index, extra in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= extra <= _LARGEST_ID:
            errors.append(fielderrors.invalid(place.child("supplementalGroups").index(index), extra, _ID_RANGE))
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(fielderrors.invalid(place.child("shareProcessNamespace"), True, detail))
    errors += _sysctl_errors(context, place.child("sysctls"))
    errors += _choice(context, "fsGroupChangePolicy", ["Always", "OnRootMismatch"], place)
    errors += _seccomp_errors(context.get("seccompProfile"), place.child("seccompProfile"))
    errors += _windows_errors(context.get("windowsOptions"), place.child("windowsOptions"))
    errors += _app_armor_errors(context.get("appArmorProfile"), place.child("appArmorProfile"))
    errors += _choice(context, "supplementalGroupsPolicy", ["Merge", "Strict"], place)
    return errors + _choice(context, "seLinuxChangePolicy", ["MountOption", "Recursive"], place)


def _choice(context: Obj, field: str, supported: list[str], where: Path) -> list[FieldError]:
    value = context.get(field)
    if value is None or value in supported:
        return []
    return [fielderrors.not_supported(where.child(field), value, supported)]


def _sysctl_errors(context: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, sysctl in enumerate(context.get("sysctls") or ()):
        name, place = sysctl.get("name", ""), where.index(index).child("name")
        if not name:
            errors.append(fielderrors.required(place))
        elif len(name) > _LONGEST_SYSCTL or not re.fullmatch(_SYSCTL, name):
            detail = f"must have at most {_LONGEST_SYSCTL} characters and match regex {_SYSCTL}"
            errors.append(fielderrors.invalid(place, name, detail))
        elif name in seen:
            errors.append(fielderrors.duplicate(place, name))
        seen.add(name)
    return errors


def host_errors(spec: Obj, where: Path) -> list[FieldError]:
    """Who has users of its own, or runs Windows' host processes, needs or forbids parts of the host."""
    errors = _host_process_errors(spec, where)
    if spec.get("hostUsers") is False:
        # Upstream's paths are capitalised so.
        for field, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
            if spec.get(field):
                errors.append(fielderrors.forbidden(where.child(shown), "when `hostUsers` is false"))
        for kind in _CONTAINERS:
            for index, container in enumerate(spec.get(kind) or ()):
                if container.get("volumeDevices"):
                    place = where.child(kind).index(index).child("volumeDevices")
                    errors.append(fielderrors.forbidden(place, "when `hostUsers` is false"))
    return errors


def _host_process_errors(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    pod = ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    found = []
    for context, place in _containers(spec, where):
        own = (context.get("windowsOptions") or {}).get("hostProcess")
        if pod is not None and own is not None and pod != own:
            detail = f"pod hostProcess value must be identical if both are specified, was {str(pod).lower()}"
            errors.append(fielderrors.invalid(place.child("windowsOptions", "hostProcess"), own, detail))
        found.append(bool(pod if own is None else own))
    if not any(found):
        return errors
    if not all(found):
        detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        errors.append(fielderrors.invalid(where, "", detail))
    if not spec.get("hostNetwork"):
        detail = "hostNetwork must be true if pod contains any hostProcess containers"
        errors.append(fielderrors.invalid(where.child("hostNetwork"), False, detail))
    return errors


def system_errors(spec: Obj, where: Path) -> list[FieldError]:
    """What the operating system that the pod names does not have."""
    if spec.get("os") is None:
        return []
    name, place = spec["os"].get("name", ""), where.child("os")
    if not name:
        return [fielderrors.required(place.child("name"))]
    if name not in ("linux", "windows"):
        return [fielderrors.not_supported(place, name, ["linux", "windows"])]
    context = spec.get("securityContext") or {}
    if name == "linux":
        detail = "windows options cannot be set for a linux pod"
        contexts = [(context, where.child("securityContext")), *_containers(spec, where)]
        return [
            fielderrors.forbidden(spot.child("windowsOptions"), detail)
            for each, spot in contexts
            if each.get("windowsOptions") is not None
        ]
    detail = "cannot be set for a windows pod"
    errors = [
        fielderrors.forbidden(where.child(*steps), detail)
        for steps in _NOT_IN_WINDOWS_PODS
        if _is_set(context if len(steps) > 1 else spec, steps[-1])
    ]
    for each, spot in _containers(spec, where):
        errors += [fielderrors.forbidden(spot.child(field), detail) for field in _NOT_ON_WINDOWS if field in each]
    return errors


def _is_set(holder: Obj, field: str) -> bool:
    value = holder.get(field)
    return bool(value) if field in ("hostPID", "hostIPC", "sysctls") else value is not None


# -- containers ------------------------------------------------------------------------------------------------------------


def container_security_errors(context: Obj | None, where: Path, *, host_users: bool) -> list[FieldError]:
    """A SecurityContext. `host_users`: the pod has no users of its own."""
    if context is None:
        return []
    errors = _id_errors(context, where, ("runAsUser", "runAsGroup"))
    mount, place = context.get("procMount"), where.child("procMount")
    errors += _choice(context, "procMount", ["Default", "Unmasked"], where)
    if mount == "Unmasked" and host_users:
        errors.append(fielderrors.invalid(place, mount, "`hostUsers` must be false to use `Unmasked`"))
    errors += _seccomp_errors(context.get("seccompProfile"), where.child("seccompProfile"))
    if context.get("allowPrivilegeEscalation") is False:
        detail = "cannot set `allowPrivilegeEscalation` to false and "
        if context.get("privileged"):
            errors.append(fielderrors.invalid(where, _go_context(context), f"{detail}`privileged` to true"))
        for added in (context.get("capabilities") or {}).get("add") or ():
            if added == "CAP_SYS_ADMIN":
                text = f"{detail}`capabilities.Add` CAP_SYS_ADMIN"
                errors.append(fielderrors.invalid(where, _go_context(context), text))
    errors += _windows_errors(context.get("windowsOptions"), where.child("windowsOptions"))
    return errors + _app_armor_errors(context.get("appArmorProfile"), where.child("appArmorProfile"))


def _id_errors(context: Obj, where: Path, fields: tuple[str, ...]) -> list[FieldError]:
    return [
        fielderrors.invalid(where.child(field), context[field], _ID_RANGE)
        for field in fields
        if context.get(field) is not None and not 0 <= context[field] <= _LARGEST_ID
    ]


def _seccomp_errors(profile: Obj | None, where: Path) -> list[FieldError]:
    if profile is None:
        return []
    kind, local, place = profile.get("type", ""), profile.get("localhostProfile"), where.child("localhostProfile")
    if not kind:
        return [fielderrors.required(where.child("type"), "type is required when seccompProfile is set")]
    if kind not in _PROFILES:
        return [fielderrors.not_supported(where.child("type"), kind, _PROFILES)]
    if kind == "Localhost":
        if not local:
            return [fielderrors.required(place, "must be set when seccomp type is Localhost")]
        return local_path_errors(local, place)
    if local is not None:
        return [fielderrors.invalid(place, local, "can only be set when seccomp type is Localhost")]
    return []


def _app_armor_errors(profile: Obj | None, where: Path) -> list[FieldError]:
    if profile is None:
        return []
    kind, local, place = profile.get("type", ""), profile.get("localhostProfile"), where.child("localhostProfile")
    if not kind:
        return [fielderrors.required(where.child("type"), "type is required when appArmorProfile is set")]
    if kind not in _PROFILES:
        return [fielderrors.not_supported(where.child("type"), kind, _PROFILES)]
    if kind != "Localhost":
        detail = "can only be set when AppArmor type is Localhost"
        return [fielderrors.invalid(place, local, detail)] if local is not None else []
    if not local:
        return [fielderrors.required(place, "must be set when AppArmor type is Localhost")]
    padded = [fielderrors.invalid(place, local, "must not be padded with whitespace")] if local != local.strip() else []
    return padded + ([fielderrors.too_long(place, _LONGEST_PROFILE)] if len(local) > _LONGEST_PROFILE else [])


def _windows_errors(options: Obj | None, where: Path) -> list[FieldError]:
    if options is None:
        return []
    errors: list[FieldError] = []
    if (name := options.get("gmsaCredentialSpecName")) is not None:
        errors += name_errors(name, where.child("gmsaCredentialSpecName"), is_dns1123_subdomain)
    if (credentials := options.get("gmsaCredentialSpec")) is not None:
        place = where.child("gmsaCredentialSpec")
        if not credentials:
            errors.append(fielderrors.invalid(place, "", "gmsaCredentialSpec cannot be an empty string"))
        elif len(credentials.encode()) > _LARGEST_CREDENTIALS:
            errors.append(fielderrors.invalid(place, credentials, "gmsaCredentialSpec size must be under 64 KiB"))
    if (user := options.get("runAsUserName")) is not None:
        problems = _windows_user_problems(user)
        errors += [fielderrors.invalid(where.child("runAsUserName"), user, f"runAsUserName{text}") for text in problems]
    return errors


def _windows_user_problems(name: str) -> list[str]:
    if not name:
        return [" cannot be an empty string"]
    if re.search(r"[\x00-\x1f\x7f]", name):
        return [" cannot contain control characters"]
    if name.count("\\") > 1:
        return [" cannot contain more than one backslash"]
    domain, slash, user = name.rpartition("\\")
    problems: list[str] = []
    if len(domain) >= _LONGEST_DOMAIN:
        problems.append(f"'s Domain length must be under {_LONGEST_DOMAIN} characters")
    if slash and not _NETBIOS.fullmatch(domain) and is_dns1123_subdomain(domain.lower()):
        problems.append("'s Domain doesn't match the NetBios nor the DNS format")
    if not user:
        problems.append("'s User cannot be empty")
    elif len(user) > _LONGEST_USER:
        problems.append(f"'s User length must not be longer than {_LONGEST_USER} characters")
    if re.fullmatch(r"[. ]+", user):
        problems.append("'s User cannot contain only periods or spaces")
    if re.search(r'["/\\:;|=,+*?<>@\[\]]', user):
        problems.append("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return problems


def _go_context(context: Obj) -> Obj:
    """The context as Go prints upstream's internal type."""
    fields = {
        "Capabilities": "capabilities",
        "Privileged": "privileged",
        "SELinuxOptions": "seLinuxOptions",
        "WindowsOptions": "windowsOptions",
        "RunAsUser": "runAsUser",
        "RunAsGroup": "runAsGroup",
        "RunAsNonRoot": "runAsNonRoot",
        "ReadOnlyRootFilesystem": "readOnlyRootFilesystem",
        "AllowPrivilegeEscalation": "allowPrivilegeEscalation",
        "ProcMount": "procMount",
        "SeccompProfile": "seccompProfile",
        "AppArmorProfile": "appArmorProfile",
    }
    return {go: context.get(name) for go, name in fields.items()}
