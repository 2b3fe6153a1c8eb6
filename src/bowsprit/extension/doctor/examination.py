"""All checks of one APIService, in order, with their stable names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from bowsprit.client.errors import ClientError
from bowsprit.extension.doctor.behaviour_checks import check_dry_run, check_namespaces, check_watchlist
from bowsprit.extension.doctor.document_checks import check_freshness, check_openapi, check_overlap
from bowsprit.extension.doctor.finding import FAIL, Finding, fail, skip
from bowsprit.extension.doctor.rights_checks import check_permissions
from bowsprit.extension.doctor.server_checks import check_certificate, check_discovery, check_ready
from bowsprit.extension.doctor.subject import Subject
from bowsprit.extension.doctor.trust_checks import check_authentication_config, check_front_proxy
from bowsprit.extension.doctor.way_checks import check_available, check_endpoints, check_reachable
from bowsprit.machinery.errors import ForbiddenError, StatusError

Check = Callable[[Subject], Awaitable[Finding]]

CHECKS: Mapping[str, Check] = {
    "authentication-config": check_authentication_config,
    "front-proxy": check_front_proxy,
    "available": check_available,
    "endpoints": check_endpoints,
    "reachable": check_reachable,
    "certificate": check_certificate,
    "discovery": check_discovery,
    "permissions": check_permissions,
    "ready": check_ready,
    "openapi": check_openapi,
    "freshness": check_freshness,
    "overlap": check_overlap,
    "watchlist": check_watchlist,
    "dry-run": check_dry_run,
    "namespaces": check_namespaces,
}


async def examine(subject: Subject) -> dict[str, Finding]:
    """What every check has found. A check that fails itself is a finding too."""
    found: dict[str, Finding] = {}
    for name, check in CHECKS.items():
        try:
            found[name] = await check(subject)
        except ForbiddenError as failure:
            found[name] = skip(f"this user may not look: {failure.message}")
        except (StatusError, ClientError, TimeoutError) as failure:
            found[name] = fail(
                f"no usable answer: {failure or 'timeout'}", "look at the API server's and the server's log"
            )
    return found


def healthy(findings: Mapping[str, Finding]) -> bool:
    """Whether nothing fails."""
    return all(finding.level != FAIL for finding in findings.values())
