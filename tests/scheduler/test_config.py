"""Configurations as encoding/json and kube-scheduler v1.36 read them: what recorded documents do not cover."""

from __future__ import annotations

import pytest

from bowsprit.scheduler.config import ConfigError, load
from bowsprit.scheduler.core import SchedulerCore
from bowsprit.scheduler.profile import ProfileError
from bowsprit.scheduler.registry import registry

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
ARGS = HEAD + "profiles:\n- pluginConfig:\n  - name: {name}\n    args: {args}\n"
STRUCT = r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
AT = "decoding .profiles[0].pluginConfig[0]: decoding args for plugin"


def error_of(text):
    with pytest.raises((ConfigError, ProfileError)) as caught:
        config, _ = load(text)
        SchedulerCore(config, registry(), lambda: 0.0)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + "clientConnection: x\n",
            "json: cannot unmarshal string into Go struct field KubeSchedulerConfiguration.clientConnection of type "
            "v1alpha1.ClientConnectionConfiguration",
        ),
        (
            HEAD + "enableProfiling: 1\n",
            "json: cannot unmarshal number into Go struct field "
            "KubeSchedulerConfiguration.DebuggingConfiguration.enableProfiling of type bool",
        ),
        # a duration has its own decoder, whose error wins over a wrong type that was met before
        (
            HEAD + "leaderElection:\n  leaderElect: []\n  renewDeadline: soon\n",
            'time: invalid duration "soon"',
        ),
        (HEAD + "leaderElection:\n  renewDeadline: null\n", 'time: invalid duration ""'),
        # JSON keeps the order of its keys, YAML is sorted
        (
            '{"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "foo": 1, "bar": 2}',
            'strict decoding error: unknown field "foo", unknown field "bar"',
        ),
        (HEAD + "foo: 1\nbar: 2\n", 'strict decoding error: unknown field "bar", unknown field "foo"'),
        (
            "apiVersion: {}\nkind: KubeSchedulerConfiguration\n",
            "couldn't get version/kind; json parse error: json: cannot unmarshal object into Go struct field "
            ".apiVersion of type string",
        ),
        (
            ARGS.format(name="NodeAffinity", args="5"),
            f"{AT} NodeAffinity: couldn't get version/kind; json parse error: json: cannot unmarshal number into Go "
            f"value of type {STRUCT}",
        ),
        (
            ARGS.format(name="NodeResourcesFit", args="{scoringStrategy: {type: 1}}"),
            f"{AT} NodeResourcesFit: json: cannot unmarshal number into Go struct field "
            "ScoringStrategy.scoringStrategy.type of type v1.ScoringStrategyType",
        ),
        (
            ARGS.format(
                name="NodeResourcesFit",
                args="{scoringStrategy: {type: MostAllocated, requestedToCapacityRatio: {shape: []}}}",
            ),
            "initializing profiles: creating profile for scheduler name default-scheduler: initializing plugin "
            '"NodeResourcesFit": scoringStrategy.requestedToCapacityRatio: Forbidden: must be nil when type is not '
            "RequestedToCapacityRatio",
        ),
        (HEAD + 'profiles:\n- schedulerName: ""\n', "profiles[0].schedulerName: Required value"),
        (
            HEAD + "profiles:\n- schedulerName: a\n  pluginConfig:\n  - name: PrioritySort\n    args: {x: 1}\n"
            "- schedulerName: b\n  pluginConfig:\n  - name: PrioritySort\n    args: {}\n"
            "  plugins:\n    queueSort:\n      enabled:\n      - name: PrioritySort\n",
            'profiles[1].plugins.queueSort: Invalid value: {"Enabled":[{"Name":"PrioritySort","Weight":0}],'
            '"Disabled":null}: must be the same for all profiles',
        ),
    ],
)
def test_what_is_wrong_is_said_to_the_letter(text, message):
    assert error_of(text) == message


def test_whole_numbers_of_yaml_may_have_a_fraction():
    assert load(HEAD + "parallelism: 3.0\n")[0]["parallelism"] == 3
    assert "number 1.5 into" in error_of(HEAD + "parallelism: 1.5\n")


def test_plugins_may_be_named_where_upstream_has_them():
    text = HEAD + "profiles:\n- plugins:\n    preFilter:\n      enabled:\n      - name: NodeResourcesFit\n"
    text += "    score:\n      enabled:\n      - name: VolumeBinding\n        weight: 2\n"
    SchedulerCore(load(text)[0], registry(), lambda: 0.0)


def test_resources_of_extenders_replace_the_ignored_ones():
    text = ARGS.format(name="NodeResourcesFit", args="{ignoredResources: [a.io/x]}")
    text += "extenders:\n- urlPrefix: http://127.0.0.1:9\n  filterVerb: f\n  managedResources:\n"
    text += "  - {name: b.io/y, ignoredByScheduler: true}\n"
    config, _ = load(text)
    assert config["profiles"][0]["pluginConfig"][0]["args"]["ignoredResources"] == ["b.io/y"]
