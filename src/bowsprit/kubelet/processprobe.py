"""Probes of containers that run as processes: httpGet and tcpSocket against this host (others count as passed)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bowsprit.machinery.objects import Obj

_MOST_BODY = 10 * 1024


async def _passes(probe: Obj, container: Obj, address: str) -> bool:
    limit = float(probe.get("timeoutSeconds") or 1)
    try:
        async with asyncio.timeout(limit):
            if action := probe.get("httpGet"):
                return await _http(action, container, address)
            if action := probe.get("tcpSocket"):
                _, writer = await asyncio.open_connection(address, _port(action["port"], container))
                writer.close()
    except (OSError, TimeoutError):
        return False
    return True


async def _http(action: Obj, container: Obj, address: str) -> bool:
    import aiohttp

    scheme = str(action.get("scheme") or "HTTP").lower()
    url = f"{scheme}://{address}:{_port(action['port'], container)}/{str(action.get('path') or '/').lstrip('/')}"
    headers = {item["name"]: item["value"] for item in action.get("httpHeaders") or ()}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=False, headers=headers, allow_redirects=False) as answer,
        ):
            await answer.content.read(_MOST_BODY)
            return 200 <= answer.status < 400
    except aiohttp.ClientError:
        return False


def _port(port: int | str, container: Obj) -> int:
    if isinstance(port, int):
        return port
    for item in container.get("ports") or ():
        if item.get("name") == port:
            return int(item["containerPort"])
    raise OSError(f"no port is named {port}")


async def follow(container: Obj, address: str, set_ready: Callable[[bool], None], kill: Callable[[str], None]) -> None:
    """Runs the probes of one container until cancelled: startup first, then liveness and readiness."""
    if startup := container.get("startupProbe"):
        await _until(startup, container, address, lambda passed: None if passed else kill("startup"), once=True)
    tasks = []
    if liveness := container.get("livenessProbe"):
        tasks.append(_until(liveness, container, address, lambda passed: None if passed else kill("liveness")))
    if readiness := container.get("readinessProbe"):
        tasks.append(_until(readiness, container, address, set_ready))
    else:
        set_ready(True)
    await asyncio.gather(*tasks)


async def _until(probe: Obj, container: Obj, address: str, tell: Callable[[bool], None], *, once: bool = False) -> None:
    """Tells each change of the verdict; `once`: returns at the first success."""
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    verdict: bool | None = None
    row = 0
    last: bool | None = None
    while True:
        passed = await _passes(probe, container, address)
        row = row + 1 if passed == last else 1
        last = passed
        needed = int(probe.get("successThreshold") or 1) if passed else int(probe.get("failureThreshold") or 3)
        if row >= needed and passed != verdict:
            verdict = passed
            tell(passed)
            if once and passed:
                return
        await asyncio.sleep(float(probe.get("periodSeconds") or 10))
