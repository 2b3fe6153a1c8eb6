"""Cluster addresses and node ports of Services (upstream pkg/registry/core/service/storage/alloc.go).

Allocations live in memory and are rebuilt from the stored Services at start; each write takes what it needs first and gives
it back when the write fails. IPAddress objects mirror the addresses (KEP-1880).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Finish
from bowsprit.controlplane.core.ipallocator import AddressAllocator, AllocationError, PortAllocator, RangeFullError
from bowsprit.controlplane.core.service import ServiceStrategy
from bowsprit.machinery import fielderrors
from bowsprit.machinery.errors import internal_error, invalid
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.names import GroupKind
from bowsprit.machinery.objects import Obj

NODE_PORTS = (30000, 32767)
HEADLESS = "None"

Mirror = Callable[[str, Obj], Awaitable[None]]
"""Writes (or, with an empty object, removes) the IPAddress of an address."""


class ServiceAllocation:
    """The allocators of one server.

    Args:
        cidrs: the service ranges, the primary family first; one or two.
        mirror: keeps the IPAddress objects.
        choose: a random number below the argument.
    """

    def __init__(self, cidrs: Sequence[str], mirror: Mirror, choose: Callable[[int], int] = random.randrange) -> None:
        self._ranges = [AddressAllocator(cidr, choose) for cidr in cidrs]
        self._ports = PortAllocator(*NODE_PORTS, choose)
        self._mirror = mirror

    @property
    def families(self) -> list[str]:
        return [item.family for item in self._ranges]

    @property
    def first_address(self) -> str:
        """The address of default/kubernetes."""
        return self._ranges[0].first

    def load(self, services: Iterable[Obj]) -> None:
        """Take what stored Services hold."""
        for service in services:
            owner = _owner(service)
            for address in _addresses(service):
                for item in self._ranges:
                    try:
                        item.allocate(address, owner)
                    except (AllocationError, ValueError):
                        continue
            for port in _ports(service):
                try:
                    self._ports.allocate(port, owner)
                except AllocationError:
                    continue

    def allocate(self, service: Obj, old: Obj | None) -> Finish:
        """Fill in what a Service needs; the result undoes or completes it.

        Raises:
            Invalid: what it asks for cannot be had.
        """
        taken_addresses: list[str] = []
        taken_ports: list[int] = []
        try:
            self._allocate_addresses(service, old, taken_addresses)
            self._allocate_ports(service, old, taken_ports)
        except BaseException:
            self._give_back(taken_addresses, taken_ports)
            raise

        def finish(stored: bool) -> None:
            if not stored:
                self._give_back(taken_addresses, taken_ports)
            elif old is not None:
                kept = set(_addresses(service))
                self._give_back(
                    [address for address in _addresses(old) if address not in kept],
                    [port for port in _ports(old) if port not in _ports(service)],
                )

        return finish

    def release(self, service: Obj) -> None:
        """Give back what a deleted Service held."""
        self._give_back(_addresses(service), _ports(service))

    async def mirror(self, service: Obj, old: Obj | None) -> None:
        """Bring the IPAddress objects in line."""
        now, before = set(_addresses(service)), set(_addresses(old) if old else ())
        for address in now - before:
            await self._mirror(address, service)
        for address in before - now:
            await self._mirror(address, {})

    def _give_back(self, addresses: Iterable[str], ports: Iterable[int]) -> None:
        for address in addresses:
            for item in self._ranges:
                item.release(address)
        self._ports.release(ports)

    def _allocate_addresses(self, service: Obj, old: Obj | None, taken: list[str]) -> None:
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            for field in ("ipFamilies", "ipFamilyPolicy", "clusterIP", "clusterIPs"):
                spec.pop(field, None)
            return
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        self._default_families(service, old)
        wanted = list(spec.get("clusterIPs") or ())
        if spec.get("clusterIP") == HEADLESS or wanted[:1] == [HEADLESS]:
            spec["clusterIP"], spec["clusterIPs"] = HEADLESS, [HEADLESS]
            return
        owner, addresses = _owner(service), []
        held = set(_addresses(old)) if old else set()
        for index, family in enumerate(spec["ipFamilies"]):
            item = next(item for item in self._ranges if item.family == family)
            if index < len(wanted) and wanted[index]:
                address = wanted[index]
                try:
                    item.allocate(address, owner)
                except AllocationError as exc:
                    detail = f"failed to allocate IP {address}: {exc}"
                    raise _invalid(service, fielderrors.invalid(path("spec", "clusterIPs"), wanted, detail)) from exc
            else:
                try:
                    address = item.allocate_next(owner)
                except RangeFullError as exc:
                    raise internal_error(f"failed to allocate a serviceIP: {exc}") from exc
            if address not in held:
                taken.append(address)
            addresses.append(address)
        spec["clusterIPs"], spec["clusterIP"] = addresses, addresses[0]

    def _default_families(self, service: Obj, old: Obj | None) -> None:
        """Family and policy (upstream defaultOnRead, initIPFamilyFields)."""
        spec = service["spec"]
        if old is not None and not spec.get("ipFamilies") and (old["spec"].get("ipFamilies")):
            spec["ipFamilies"] = list(old["spec"]["ipFamilies"])
            spec.setdefault("ipFamilyPolicy", old["spec"].get("ipFamilyPolicy"))
        families = list(spec.get("ipFamilies") or ())
        for address in spec.get("clusterIPs") or ():
            if address and address != HEADLESS:
                family = "IPv6" if ":" in address else "IPv4"
                if family not in families:
                    families.append(family)
        policy = spec.get("ipFamilyPolicy") or ("RequireDualStack" if len(families) > 1 else "SingleStack")
        headless_without_selector = spec.get("clusterIP") == HEADLESS and not spec.get("selector")
        if policy == "RequireDualStack" and len(self._ranges) < 2 and not headless_without_selector:
            detail = "this cluster is not configured for dual-stack services"
            raise _invalid(service, fielderrors.invalid(path("spec", "ipFamilyPolicy"), policy, detail))
        for index, family in enumerate(families):
            if family not in self.families and not headless_without_selector:
                detail = "not configured on this cluster"
                raise _invalid(service, fielderrors.invalid(path("spec", "ipFamilies").index(index), family, detail))
        if not families:
            families = [self.families[0]]
            if headless_without_selector and not spec.get("ipFamilyPolicy") and len(self.families) > 1:
                policy = "RequireDualStack"
        if policy in ("PreferDualStack", "RequireDualStack") and len(families) == 1:
            families += [family for family in self.families if family not in families]
        if policy == "SingleStack":
            families = families[:1]
        spec["ipFamilies"], spec["ipFamilyPolicy"] = families, policy

    def _allocate_ports(self, service: Obj, old: Obj | None, taken: list[int]) -> None:
        spec = service["spec"]
        kind = spec.get("type")
        if not (
            kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)
        ):
            asked = kind == "LoadBalancer"
            for port in spec.get("ports") or ():
                if not asked:
                    port.pop("nodePort", None)
        else:
            self._node_ports(service, old, taken)
        if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
            self._health_port(service, old, taken)
        else:
            spec.pop("healthCheckNodePort", None)

    def _node_ports(self, service: Obj, old: Obj | None, taken: list[int]) -> None:
        owner, held = _owner(service), set(_ports(old)) if old else set()
        by_number: dict[int, int] = {}
        for index, port in enumerate(service["spec"].get("ports") or ()):
            number = port.get("nodePort")
            if number:
                try:
                    self._ports.allocate(number, owner)
                except AllocationError as exc:
                    where = path("spec", "ports").index(index).child("nodePort")
                    raise _invalid(service, fielderrors.invalid(where, number, str(exc))) from exc
            else:
                # The same port in two protocols shares one number.
                number = by_number.get(port.get("port", 0)) or self._ports.allocate_next(owner)
                port["nodePort"] = number
            by_number[port.get("port", 0)] = number
            if number not in held:
                taken.append(number)

    def _health_port(self, service: Obj, old: Obj | None, taken: list[int]) -> None:
        spec, owner = service["spec"], _owner(service)
        held = (old or {}).get("spec", {}).get("healthCheckNodePort")
        number = spec.get("healthCheckNodePort")
        if number:
            try:
                self._ports.allocate(number, owner)
            except AllocationError as exc:
                detail = f"failed to allocate requested HealthCheck NodePort {number}: {exc}"
                raise internal_error(detail) from exc
        else:
            number = spec["healthCheckNodePort"] = self._ports.allocate_next(owner)
        if number != held:
            taken.append(number)


class AllocatingServiceStrategy(ServiceStrategy):
    """The main endpoint with allocation.

    Args:
        allocation: gives the running server's allocators.
    """

    def __init__(self, allocation: Callable[[], ServiceAllocation]) -> None:
        self._allocation = allocation

    async def begin_create(self, obj: Obj, ctx: RequestContext) -> Finish | None:
        return self._begin(obj, None, ctx)

    async def begin_update(self, new: Obj, old: Obj, ctx: RequestContext) -> Finish | None:
        ctx.scratch["old service"] = old
        return self._begin(new, old, ctx)

    def _begin(self, new: Obj, old: Obj | None, ctx: RequestContext) -> Finish | None:
        finish = self._allocation().allocate(new, old)
        if ctx.dry_run:
            finish(False)
            return None
        return finish

    async def after_create(self, obj: Obj, ctx: RequestContext) -> None:
        await self._allocation().mirror(obj, None)

    async def after_update(self, obj: Obj, ctx: RequestContext) -> None:
        await self._allocation().mirror(obj, ctx.scratch.get("old service"))

    async def after_delete(self, obj: Obj, ctx: RequestContext) -> None:
        self._allocation().release(obj)
        await self._allocation().mirror({"spec": {}, "metadata": obj["metadata"]}, obj)


def _owner(service: Obj) -> str:
    meta = service["metadata"]
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}"


def _addresses(service: Obj) -> list[str]:
    spec = service.get("spec") or {}
    listed = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [address for address in listed if address and address != HEADLESS]


def _ports(service: Obj) -> list[int]:
    spec = service.get("spec") or {}
    ports = [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        ports.append(spec["healthCheckNodePort"])
    return ports


def _invalid(service: Obj, error: FieldError) -> Exception:
    return invalid(GroupKind("", "Service"), service["metadata"].get("name", ""), [error])
