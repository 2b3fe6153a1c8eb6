"""Content negotiation: which representation a client accepts, which one it sent (upstream handlers/negotiation).

Two gates, as upstream: the route's list of media types (go-restful, exact types or */*), then the serializer's choice with
parameters (as=Table;v=v1;g=meta.k8s.io). Their refusals have different texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from bowsprit.machinery.errors import NotAcceptableError, not_acceptable, unsupported_media_type

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
MEDIA_TYPES = (JSON, YAML, PROTOBUF)
STREAM_TYPES = (f"{JSON};stream=watch", f"{PROTOBUF};stream=watch")
_CACHED_LENGTH = 512  # longer Accept headers are not remembered
META_VERSIONS = ("v1", "v1beta1")
_TRANSFORMS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")


@dataclass(frozen=True, slots=True)
class Representation:
    """How an answer is to be written. `convert` is Table, PartialObjectMetadata(List) or "" with its `version`."""

    media_type: str = JSON
    convert: str = ""
    version: str = ""
    pretty: bool = False


@dataclass(frozen=True, slots=True)
class _Clause:
    type: str
    params: tuple[tuple[str, str], ...]
    quality: float


def _parse_accept(accept: str) -> tuple[_Clause, ...]:
    clauses = []
    for part in accept.split(","):
        media_type, *params = (piece.strip() for piece in part.split(";"))
        if not media_type:
            continue
        quality = 1.0
        kept = []
        for param in params:
            key, _, value = param.partition("=")
            if key == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 1.0
            else:
                kept.append((key, value))
        clauses.append(_Clause(media_type, tuple(kept), quality))
    return tuple(sorted(clauses, key=lambda clause: -clause.quality))


def check_route(accept: str, *, streams: bool = False, produces: tuple[str, ...] = MEDIA_TYPES) -> None:
    """go-restful's gate: 406 unless some accepted type is literally one of the route's, or */*."""
    if not accept or accept in _PLAIN:
        return
    offered = produces + STREAM_TYPES if streams else produces
    bare = {media_type.partition(";")[0] for media_type in offered}
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip()
        if media_type in bare or media_type == "*/*":
            return
    error = not_acceptable("406: Not Acceptable\n\nAvailable representations: " + ", ".join(offered))
    raise NotAcceptableError(error.message, details={})


_PLAIN = frozenset({"*/*", *MEDIA_TYPES})


def negotiate(accept: str, *, protobuf: bool = True, transforms: bool = True) -> Representation:
    """The representation of a non-watch answer. Raises 406 with the serializer's text."""
    choose = _choose if len(accept) <= _CACHED_LENGTH else _choose.__wrapped__
    return choose(accept, protobuf, transforms)


@lru_cache(512)
def _choose(accept: str, protobuf: bool, transforms: bool) -> Representation:
    supported = MEDIA_TYPES if protobuf else MEDIA_TYPES[:2]
    if not accept:
        return Representation()
    for clause in _parse_accept(accept):
        for media_type in supported:
            if _matches(clause.type, media_type):
                chosen = _with_params(clause, media_type, transforms=transforms)
                if chosen is not None:
                    return chosen
    raise not_acceptable("only the following media types are accepted: " + ", ".join(supported))


def negotiate_watch(accept: str, *, protobuf: bool = True) -> Representation:
    """The representation of watch events: json or protobuf, with or without `;stream=watch`."""
    supported = (JSON, PROTOBUF) if protobuf else (JSON,)
    if not accept:
        return Representation()
    for clause in _parse_accept(accept):
        for media_type in supported:
            if _matches(clause.type, media_type):
                chosen = _with_params(clause, media_type, transforms=True, stream=True)
                if chosen is not None:
                    return chosen
    raise not_acceptable(
        "only the following media types are accepted: " + ", ".join(f"{name};stream=watch" for name in supported)
    )


def _matches(wanted: str, media_type: str) -> bool:
    if wanted in (media_type, "*/*"):
        return True
    return wanted.endswith("/*") and media_type.startswith(wanted[:-1])


def _with_params(clause: _Clause, media_type: str, *, transforms: bool, stream: bool = False) -> Representation | None:
    """Upstream acceptMediaTypeOptions: None if a parameter asks for what is not there."""
    params = dict(clause.params)
    if params.get("charset", "utf-8").lower() != "utf-8":
        return None
    if "stream" in params and (not stream or params["stream"] != "watch"):
        return None
    convert = params.get("as", "")
    if convert:
        version = params.get("v", "")
        if not transforms or convert not in _TRANSFORMS:
            return None
        if params.get("g") != "meta.k8s.io" or version not in META_VERSIONS:
            return None
        if convert == "Table" and media_type == PROTOBUF:
            return None
        return Representation(media_type, convert, version, params.get("pretty") == "1")
    return Representation(media_type, pretty=params.get("pretty") == "1")


def wants_pretty(query_pretty: str | None, user_agent: str) -> bool:
    """Upstream isPrettyPrint: the query decides; browsers and command-line tools get it unasked."""
    if query_pretty:
        return query_pretty in ("1", "t", "T", "TRUE", "true", "True")
    return user_agent.startswith(("curl", "Wget", "Mozilla/5.0"))


def body_media_type(content_type: str, *, protobuf: bool = True) -> str:
    """The media type of a request body; none at all means JSON. Raises 415."""
    if not content_type:
        return JSON
    media_type = content_type.partition(";")[0].strip().lower()
    supported = MEDIA_TYPES if protobuf else MEDIA_TYPES[:2]
    if media_type in supported:
        return media_type
    raise unknown_body_type(supported)


def unknown_body_type(supported: tuple[str, ...]) -> Exception:
    """415 with the list of what would do."""
    return unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(supported)
    )
