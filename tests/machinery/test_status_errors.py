"""Statuses carry upstream's texts, reasons and details. Expected bodies are recorded from Kubernetes v1.36."""

# ruff: noqa: E501

import pytest

from bowsprit.machinery import errors
from bowsprit.machinery.fielderrors import invalid, path, required, too_long, too_many
from bowsprit.machinery.names import GroupKind, GroupResource

DEPLOYMENTS = GroupResource("apps", "deployments")
PODS = GroupResource("", "pods")


def body(error: errors.StatusError) -> dict:
    status = error.to_status()
    assert (status.pop("kind"), status.pop("apiVersion"), status.pop("metadata"), status.pop("status")) == (
        "Status",
        "v1",
        {},
        "Failure",
    )
    return status


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            errors.not_found(DEPLOYMENTS, "none"),
            {
                "message": 'deployments.apps "none" not found',
                "reason": "NotFound",
                "details": {"name": "none", "group": "apps", "kind": "deployments"},
                "code": 404,
            },
        ),
        (
            errors.already_exists(GroupResource("", "configmaps"), "dr"),
            {
                "message": 'configmaps "dr" already exists',
                "reason": "AlreadyExists",
                "details": {"name": "dr", "kind": "configmaps"},
                "code": 409,
            },
        ),
        (
            errors.conflict(
                DEPLOYMENTS,
                "d",
                "the object has been modified; please apply your changes to the latest version and try again",
            ),
            {
                "message": 'Operation cannot be fulfilled on deployments.apps "d": the object has been modified; please apply your changes to the latest version and try again',
                "reason": "Conflict",
                "details": {"name": "d", "group": "apps", "kind": "deployments"},
                "code": 409,
            },
        ),
        (
            errors.forbidden(
                PODS, "", 'User "mallory" cannot list resource "pods" in API group "" in the namespace "default"'
            ),
            {
                "message": 'pods is forbidden: User "mallory" cannot list resource "pods" in API group "" in the namespace "default"',
                "reason": "Forbidden",
                "details": {"kind": "pods"},
                "code": 403,
            },
        ),
        (
            errors.forbidden(None, "", 'User "system:anonymous" cannot get path "/api"'),
            {
                "message": 'forbidden: User "system:anonymous" cannot get path "/api"',
                "reason": "Forbidden",
                "details": {},
                "code": 403,
            },
        ),
        (
            errors.too_large_resource_version(99999999, 643),
            {
                "message": "Timeout: Too large resource version: 99999999, current: 643",
                "reason": "Timeout",
                "details": {
                    "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                    "retryAfterSeconds": 1,
                },
                "code": 504,
            },
        ),
        (
            errors.internal_error("failed calling webhook"),
            {
                "message": "Internal error occurred: failed calling webhook",
                "reason": "InternalError",
                "details": {"causes": [{"message": "failed calling webhook"}]},
                "code": 500,
            },
        ),
        (errors.unknown("target.name: Required value"), {"message": "target.name: Required value", "code": 500}),
        (
            errors.too_large("limit is 3145728"),
            {"message": "Request entity too large: limit is 3145728", "reason": "RequestEntityTooLarge", "code": 413},
        ),
        (errors.unauthorized(), {"message": "Unauthorized", "reason": "Unauthorized", "code": 401}),
        (
            errors.generic(404),
            {
                "message": "the server could not find the requested resource",
                "reason": "NotFound",
                "details": {},
                "code": 404,
            },
        ),
        (
            errors.generic(405),
            {
                "message": "the server does not allow this method on the requested resource",
                "reason": "MethodNotAllowed",
                "details": {},
                "code": 405,
            },
        ),
        (
            errors.generic(422),
            {
                "message": "the server rejected our request due to an error in our request",
                "reason": "Invalid",
                "details": {},
                "code": 422,
            },
        ),
        (
            errors.generic(415, message="415: Unsupported Media Type"),
            {"message": "415: Unsupported Media Type", "reason": "UnsupportedMediaType", "details": {}, "code": 415},
        ),
        (
            errors.apply_conflict(
                [errors.cause("FieldManagerConflict", 'conflict with "m2"', ".data.a")],
                'Apply failed with 1 conflict: conflict with "m2": .data.a',
            ),
            {
                "message": 'Apply failed with 1 conflict: conflict with "m2": .data.a',
                "reason": "Conflict",
                "details": {
                    "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "m2"', "field": ".data.a"}]
                },
                "code": 409,
            },
        ),
        (
            errors.too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                10,
                causes=[errors.cause("DisruptionBudget", "x")],
            ),
            {
                "message": "Cannot evict pod as it would violate the pod's disruption budget.",
                "reason": "TooManyRequests",
                "details": {"causes": [{"reason": "DisruptionBudget", "message": "x"}], "retryAfterSeconds": 10},
                "code": 429,
            },
        ),
    ],
)
def test_bodies_equal_the_recorded_ones(error: errors.StatusError, expected: dict) -> None:
    assert body(error) == expected
    assert list(body(error)) == [key for key in ("message", "reason", "details", "code") if key in expected]
    back = errors.from_status(error.to_status())
    assert type(back) is type(error)
    assert back.to_status() == error.to_status()


def test_invalid_lists_every_cause_and_joins_the_messages() -> None:
    spec = path("spec")
    error = errors.invalid(
        GroupKind("c.example.com", "Foo"),
        "bad",
        [required(spec.child("size")), invalid(None, None, "some rules were not checked")],
    )
    assert body(error) == {
        "message": 'Foo.c.example.com "bad" is invalid: [spec.size: Required value, <nil>: Invalid value: null: some rules were not checked]',
        "reason": "Invalid",
        "details": {
            "name": "bad",
            "group": "c.example.com",
            "kind": "Foo",
            "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.size"},
                {
                    "reason": "FieldValueInvalid",
                    "message": "Invalid value: null: some rules were not checked",
                    "field": "<nil>",
                },
            ],
        },
        "code": 422,
    }


def test_equal_messages_are_joined_once_but_every_cause_is_kept() -> None:
    twice = [invalid(path("metadata", "uid"), "x", "field is immutable")] * 2
    error = errors.invalid(GroupKind("", "ConfigMap"), "con", twice)
    assert error.message == 'ConfigMap "con" is invalid: metadata.uid: Invalid value: "x": field is immutable'
    assert len(error.causes) == 2


def test_a_lone_error_has_no_brackets_and_none_has_no_colon() -> None:
    gk = GroupKind("", "Pod")
    assert errors.invalid(gk, "p", [required("a")]).message == 'Pod "p" is invalid: a: Required value'
    assert errors.invalid(gk, "p", []).message == 'Pod "p" is invalid'


def test_unknown_reasons_survive_the_round_trip() -> None:
    status = {"code": 418, "reason": "Teapot", "message": "short and stout"}
    error = errors.from_status(status)
    assert isinstance(error, errors.RequestFault)
    assert (error.code, error.reason) == (418, "Teapot")


def test_field_error_bodies() -> None:
    field = path("spec").child("ports").index(1).key("a")
    assert str(field) == "spec.ports[1][a]"
    assert str(path().child("spec")) == "spec"
    assert str(invalid(field, {"port": 1, "x": "<"}, "")) == 'spec.ports[1][a]: Invalid value: {"port":1,"x":"\\u003c"}'
    assert too_many("x", 4, 3).error_body() == "Too many: 4: must have at most 3 items"
    assert too_many("x", -1, 1).error_body() == "Too many: must have at most 1 item"
    assert too_long("x", 3).error_body() == "Too long: may not be more than 3 bytes"
    assert invalid("x", 0.3, "d").error_body() == "Invalid value: 0.3: d"
    assert invalid("x", True, "d").error_body() == "Invalid value: true: d"
    assert invalid("x", ["a"], "d").error_body() == 'Invalid value: ["a"]: d'
