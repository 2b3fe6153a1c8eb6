"""Where ServiceAccount tokens meet the API: `serviceaccounts/token`, and the documents that let others verify them.

Upstream: pkg/registry/core/serviceaccount/storage/token.go, pkg/routes/openidmetadata.go.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from bowsprit.apiserver.authentication import jwt
from bowsprit.apiserver.authentication.serviceaccount import TokenIssuer, TokenSettings, default_token_request
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import ActionSubresource
from bowsprit.controlplane.schemas import BuiltinSchema
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj
from bowsprit.pki.signing import PublicKey

TOKEN_REQUEST = GroupVersionKind("authentication.k8s.io", "v1", "TokenRequest")
CONFIGURATION_PATH = "/.well-known/openid-configuration"
KEYS_PATH = "/openid/v1/jwks"


def token_subresource(issuer: TokenIssuer) -> ActionSubresource:
    """`serviceaccounts/token`."""

    async def create(ctx: RequestContext, name: str, request: Obj) -> Obj:
        return issuer.issue(ctx.info.namespace, name, request)

    return ActionSubresource(
        "token", TOKEN_REQUEST, create, schema=BuiltinSchema(TOKEN_REQUEST), default=default_token_request
    )


def discovery_document(settings: TokenSettings, jwks_uri: str) -> bytes:
    """`/.well-known/openid-configuration` (OpenID Connect Discovery 1.0, the part that Kubernetes serves)."""
    return orjson.dumps(
        {
            "issuer": settings.issuers[0],
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": _algorithms(settings.verification_keys),
        }
    )


def key_set(settings: TokenSettings) -> bytes:
    """`/openid/v1/jwks` (RFC 7517)."""
    return orjson.dumps({"keys": [jwt.jwk(key) for key in settings.verification_keys]})


def _algorithms(keys: Sequence[PublicKey]) -> list[str]:
    return sorted({jwt.algorithm(key) for key in keys})
