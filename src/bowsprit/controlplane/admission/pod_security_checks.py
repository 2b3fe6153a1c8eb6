"""The Pod Security Standards as checks of a pod's metadata and spec.

Upstream: k8s.io/pod-security-admission/policy. Each check gives "" or `reason (detail)`. Versions before v1.29 differ from the
latest in a few checks; the version is shown in messages and all checks are those of the latest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj, nested

Check = Callable[[Obj, Obj], str]  # (pod metadata, pod spec) -> what is forbidden

_DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_ALLOWED_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "image",
    }
)
_APPARMOR_PREFIX = "container.apparmor.security.beta.kubernetes.io/"
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def _containers(spec: Obj) -> Iterator[Obj]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind) or ()


def _context(holder: Obj, *path: str) -> Any:
    return nested(holder, "securityContext", *path)


def _plural(words: Sequence[str], one: str, many: str) -> str:
    return one if len(words) == 1 else many


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(map(quote, words))


def _owners(names: Sequence[str]) -> str:
    return f"{_plural(names, 'container', 'containers')} {_quoted(names)}"


def _names(spec: Obj, wrong: Callable[[Obj], bool]) -> list[str]:
    return [container.get("name", "") for container in _containers(spec) if wrong(container)]


def _windows_spec(spec: Obj) -> bool:
    return bool(nested(spec, "os", "name") == "windows")


def _app_armor(meta: Obj, spec: Obj) -> str:
    found = []
    if _context(spec, "appArmorProfile", "type") == "Unconfined":
        found.append('pod must not set AppArmor profile type to "Unconfined"')
    names = _names(spec, lambda item: _context(item, "appArmorProfile", "type") == "Unconfined")
    if names:
        found.append(f'{_owners(names)} must not set AppArmor profile type to "Unconfined"')
    forbidden = sorted(
        f"{name}={quote(value)}"
        for name, value in (meta.get("annotations") or {}).items()
        if name.startswith(_APPARMOR_PREFIX)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    )
    if forbidden:
        found.append(f"{_plural(forbidden, 'annotation', 'annotations')} {', '.join(forbidden)}")
    return f"forbidden AppArmor {_plural(found, 'profile', 'profiles')} ({', '.join(found)})" if found else ""


def _capabilities_baseline(_: Obj, spec: Obj) -> str:
    added: set[str] = set()
    names = []
    for container in _containers(spec):
        extra = set(_context(container, "capabilities", "add") or ()) - _DEFAULT_CAPABILITIES
        if extra:
            names.append(container.get("name", ""))
            added |= extra
    if not names:
        return ""
    listed = _quoted(sorted(added))
    return f"non-default capabilities ({_owners(names)} must not include {listed} in securityContext.capabilities.add)"


def _host_namespaces(_: Obj, spec: Obj) -> str:
    found = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return f"host namespaces ({', '.join(found)})" if found else ""


def _host_path_volumes(_: Obj, spec: Obj) -> str:
    names = [volume.get("name", "") for volume in spec.get("volumes") or () if volume.get("hostPath") is not None]
    return f"hostPath volumes ({_plural(names, 'volume', 'volumes')} {_quoted(names)})" if names else ""


def _host_ports(_: Obj, spec: Obj) -> str:
    names, ports = [], set()
    for container in _containers(spec):
        own = {port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")}
        if own:
            names.append(container.get("name", ""))
            ports |= own
    if not names:
        return ""
    verb = _plural(names, "uses", "use")
    listed = sorted(map(str, ports))
    return f"hostPort ({_owners(names)} {verb} {_plural(listed, 'hostPort', 'hostPorts')} {', '.join(listed)})"


def _host_probes(_: Obj, spec: Obj) -> str:
    names, hosts = [], set()
    for container in _containers(spec):
        handlers = [container.get(probe) for probe in _PROBES]
        handlers += [nested(container, "lifecycle", hook) for hook in ("postStart", "preStop")]
        own = {nested(item, kind, "host", default="") for item in handlers for kind in ("httpGet", "tcpSocket")} - {""}
        if own:
            names.append(container.get("name", ""))
            hosts |= own
    if not names:
        return ""
    listed = sorted(hosts)
    word = _plural(listed, "probe or lifecycle host", "probe or lifecycle hosts")
    return f"probe or lifecycle host ({_owners(names)} {_plural(names, 'uses', 'use')} {word} {_quoted(listed)})"


def _privileged(_: Obj, spec: Obj) -> str:
    names = _names(spec, lambda item: _context(item, "privileged") is True)
    return f"privileged ({_owners(names)} must not set securityContext.privileged=true)" if names else ""


def _proc_mount(_: Obj, spec: Obj) -> str:
    if spec.get("hostUsers") is False:
        return ""
    names, types = [], set()
    for container in _containers(spec):
        mount = _context(container, "procMount")
        if mount not in (None, "Default"):
            names.append(container.get("name", ""))
            types.add(str(mount))
    if not names:
        return ""
    return f"procMount ({_owners(names)} must not set securityContext.procMount to {_quoted(sorted(types))})"


def _seccomp_baseline(_: Obj, spec: Obj) -> str:
    setters = []
    if _context(spec, "seccompProfile", "type") == "Unconfined":
        setters.append("pod")
    names = _names(spec, lambda item: _context(item, "seccompProfile", "type") == "Unconfined")
    if names:
        setters.append(_owners(names))
    if not setters:
        return ""
    return f'seccompProfile ({" and ".join(setters)} must not set securityContext.seccompProfile.type to "Unconfined")'


def _selinux(_: Obj, spec: Obj) -> str:
    bad_types: set[str] = set()
    user = role = False
    setters = []
    owners: list[str] = []
    for holder, name in [(spec, None), *((item, item.get("name", "")) for item in _containers(spec))]:
        options = _context(holder, "seLinuxOptions") or {}
        wrong_type = options.get("type", "") not in _SELINUX_TYPES
        if wrong_type:
            bad_types.add(options["type"])
        user, role = user or bool(options.get("user")), role or bool(options.get("role"))
        if wrong_type or options.get("user") or options.get("role"):
            if name is None:
                setters.append("pod")
            else:
                owners.append(name)
    if owners:
        setters.append(_owners(owners))
    if not setters:
        return ""
    found = [f"{_plural(sorted(bad_types), 'type', 'types')} {_quoted(sorted(bad_types))}"] if bad_types else []
    found += ["user may not be set"] if user else []
    found += ["role may not be set"] if role else []
    return f"seLinuxOptions ({' and '.join(setters)} set forbidden securityContext.seLinuxOptions: {'; '.join(found)})"


def _sysctls(_: Obj, spec: Obj) -> str:
    names = [item.get("name", "") for item in _context(spec, "sysctls") or () if item.get("name") not in _SAFE_SYSCTLS]
    return f"forbidden sysctls ({', '.join(names)})" if names else ""


def _windows_host_process(_: Obj, spec: Obj) -> str:
    setters = []
    if _context(spec, "windowsOptions", "hostProcess"):
        setters.append("pod")
    names = _names(spec, lambda item: bool(_context(item, "windowsOptions", "hostProcess")))
    if names:
        setters.append(_owners(names))
    if not setters:
        return ""
    return f"hostProcess ({' and '.join(setters)} must not set securityContext.windowsOptions.hostProcess=true)"


def _privilege_escalation(_: Obj, spec: Obj) -> str:
    if _windows_spec(spec):
        return ""
    names = _names(spec, lambda item: _context(item, "allowPrivilegeEscalation") is not False)
    if not names:
        return ""
    return (
        f"allowPrivilegeEscalation != false ({_owners(names)} must set securityContext.allowPrivilegeEscalation=false)"
    )


def _capabilities_restricted(_: Obj, spec: Obj) -> str:
    if _windows_spec(spec):
        return ""
    keeping, adding, added = [], [], set()
    for container in _containers(spec):
        capabilities = _context(container, "capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            keeping.append(container.get("name", ""))
        extra = set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}
        if extra:
            adding.append(container.get("name", ""))
            added |= extra
    found = []
    if keeping:
        found.append(f'{_owners(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        found.append(f"{_owners(adding)} must not include {_quoted(sorted(added))} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(found)})" if found else ""


def _restricted_volumes(_: Obj, spec: Obj) -> str:
    names, types = [], set()
    for volume in spec.get("volumes") or ():
        source = next((key for key, value in volume.items() if key != "name" and value is not None), "")
        if source and source not in _ALLOWED_VOLUMES:
            names.append(volume.get("name", ""))
            types.add(source)
    if not names:
        return ""
    owner = f"{_plural(names, 'volume', 'volumes')} {_quoted(names)} {_plural(names, 'uses', 'use')}"
    listed = sorted(types)
    return f"restricted volume types ({owner} restricted volume {_plural(listed, 'type', 'types')} {_quoted(listed)})"


def _run_as_non_root(_: Obj, spec: Obj) -> str:
    if spec.get("hostUsers") is False:  # a user namespace makes root harmless
        return ""
    of_pod = _context(spec, "runAsNonRoot")
    explicit = _names(spec, lambda item: _context(item, "runAsNonRoot") is False)
    found = []
    if of_pod is False:
        found.append("pod must not set securityContext.runAsNonRoot=false")
    if explicit:
        found.append(f"{_owners(explicit)} must not set securityContext.runAsNonRoot=false")
    if not found and not of_pod:
        implicit = _names(spec, lambda item: _context(item, "runAsNonRoot") is None)
        if implicit:
            found.append(f"pod or {_owners(implicit)} must set securityContext.runAsNonRoot=true")
    return f"runAsNonRoot != true ({'; '.join(found)})" if found else ""


def _run_as_user(_: Obj, spec: Obj) -> str:
    if spec.get("hostUsers") is False:
        return ""
    setters = ["pod"] if _context(spec, "runAsUser") == 0 else []
    names = _names(spec, lambda item: _context(item, "runAsUser") == 0)
    if names:
        setters.append(_owners(names))
    return f"runAsUser=0 ({' and '.join(setters)} must not set runAsUser=0)" if setters else ""


def _seccomp_restricted(_: Obj, spec: Obj) -> str:
    if _windows_spec(spec):
        return ""
    good = ("RuntimeDefault", "Localhost")
    of_pod = _context(spec, "seccompProfile", "type")
    found = []
    if of_pod is not None and of_pod not in good:
        found.append(f"pod must not set securityContext.seccompProfile.type to {quote(of_pod)}")
    explicit, types = [], set()
    for container in _containers(spec):
        own = _context(container, "seccompProfile", "type")
        if own is not None and own not in good:
            explicit.append(container.get("name", ""))
            types.add(own)
    if explicit:
        listed = _quoted(sorted(types))
        found.append(f"{_owners(explicit)} must not set securityContext.seccompProfile.type to {listed}")
    implicit = [] if of_pod in good else _names(spec, lambda item: _context(item, "seccompProfile", "type") is None)
    if not found and implicit:
        wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        found.append(f"pod or {_owners(implicit)} {wanted}")
    return f"seccompProfile ({'; '.join(found)})" if found else ""


_BASELINE: tuple[Check, ...] = (  # in the order of upstream's ids
    _app_armor,
    _capabilities_baseline,
    _host_namespaces,
    _host_path_volumes,
    _host_ports,
    _host_probes,
    _privileged,
    _proc_mount,
    _selinux,
    _seccomp_baseline,
    _sysctls,
    _windows_host_process,
)
_RESTRICTED: tuple[Check, ...] = (
    _privilege_escalation,
    _capabilities_restricted,
    _restricted_volumes,
    _run_as_non_root,
    _run_as_user,
    _seccomp_restricted,
)
_OVERRIDDEN = {_capabilities_baseline, _host_path_volumes, _seccomp_baseline}  # the restricted forms say more
_LEVELS: dict[str, tuple[Check, ...]] = {
    "privileged": (),
    "baseline": _BASELINE,
    "restricted": (*(check for check in _BASELINE if check not in _OVERRIDDEN), *_RESTRICTED),
}
LEVELS = tuple(_LEVELS)


def violations(level: str, meta: Obj, spec: Obj) -> list[str]:
    """What a pod does that a level forbids, as upstream words it."""
    return [text for check in _LEVELS[level] if (text := check(meta, spec))]
