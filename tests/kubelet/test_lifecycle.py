"""The life of simulated pods, told without clock or network."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.kubelet.lifecycle import Host, look
from bowsprit.machinery.time import format_time

Obj = dict[str, Any]
START = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
HOST = Host("172.30.0.2", "10.244.0.2")


def pod(
    *containers: str,
    policy: str = "Always",
    init: tuple[str, ...] = (),
    sidecars: tuple[str, ...] = (),
    owner: str = "",
    **annotations: str,
) -> Obj:
    listed: list[Obj] = [{"name": name, "image": "busybox"} for name in init]
    listed += [{"name": name, "image": "proxy", "restartPolicy": "Always"} for name in sidecars]
    meta: Obj = {"name": "p", "namespace": "default", "uid": "u-1", "generation": 1}
    if annotations:
        meta["annotations"] = {
            key.replace("__", ".bowsprit.dev/").replace("_", "-"): value for key, value in annotations.items()
        }
        meta["annotations"] = {
            (key if "/" in key else f"bowsprit.dev/{key}"): value for key, value in meta["annotations"].items()
        }
    if owner:
        meta["ownerReferences"] = [{"kind": owner, "name": "o", "uid": "o-1", "controller": True}]
    spec: Obj = {
        "nodeName": "node-0",
        "restartPolicy": policy,
        "containers": [{"name": name, "image": "nginx"} for name in containers or ("web",)],
    }
    if listed:
        spec["initContainers"] = listed
    return {"metadata": meta, "spec": spec, "status": {"phase": "Pending", "qosClass": "BestEffort"}}


class Simulation:
    """Looks at a pod whenever it asks to be looked at."""

    def __init__(self, subject: Obj) -> None:
        self.pod = subject
        self.now = START
        self.events: list[str] = []
        self.phases: list[str] = []
        self.deleted = False
        self.wake: float | None = 0.0

    def step(self) -> None:
        outcome = look(self.pod, HOST, self.now)
        self.pod = {**self.pod, "status": outcome.status}
        self.events += [event.reason for event in outcome.events]
        self.phases.append(outcome.status.get("phase", ""))
        self.wake = outcome.wake
        self.deleted = outcome.delete

    def run(self, seconds: float) -> Simulation:
        end = self.now + timedelta(seconds=seconds)
        while not self.deleted:
            self.step()
            if self.wake is None or self.deleted or self.now + timedelta(seconds=self.wake) > end:
                break
            self.now += timedelta(seconds=max(self.wake, 0.001))
        self.now = max(self.now, end)
        return self

    def delete(self, grace: int = 30) -> Simulation:
        self.pod["metadata"]["deletionTimestamp"] = format_time(self.now + timedelta(seconds=grace))
        self.pod["metadata"]["deletionGracePeriodSeconds"] = grace
        return self

    def condition(self, type_: str) -> Obj:
        return next(item for item in self.pod["status"]["conditions"] if item["type"] == type_)

    def container(self, name: str = "web", field: str = "containerStatuses") -> Obj:
        return next(item for item in self.pod["status"][field] if item["name"] == name)


def test_a_pod_is_created_then_runs_and_is_ready() -> None:
    life = Simulation(pod("web"))
    life.step()
    assert life.pod["status"]["phase"] == "Pending"
    assert life.container()["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert life.condition("Ready")["reason"] == "ContainersNotReady"
    assert life.condition("Ready")["message"] == "containers with unready status: [web]"
    life.run(5)
    status = life.pod["status"]
    assert (status["phase"], status["podIP"], status["hostIP"], status["qosClass"]) == (
        "Running",
        HOST.pod_ip,
        HOST.host_ip,
        "BestEffort",
    )
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }
    assert life.events == ["Pulled", "Created", "Started"]
    assert life.wake is None


def test_pods_of_jobs_succeed_after_a_while() -> None:
    life = Simulation(pod("main", policy="Never", owner="Job")).run(5)
    assert life.pod["status"]["phase"] == "Succeeded"
    assert life.container("main")["state"]["terminated"]["reason"] == "Completed"
    assert life.condition("Ready")["reason"] == "PodCompleted"
    kept = Simulation(pod("main", policy="Never", owner="Job", run_duration="forever")).run(5)
    assert kept.pod["status"]["phase"] == "Running"


def test_an_exit_code_fails_a_pod_that_is_never_restarted() -> None:
    life = Simulation(pod("main", policy="Never", exit_code="3", run_duration="2s")).run(1.1)
    assert life.pod["status"]["phase"] == "Running"
    life.run(2)
    assert life.pod["status"]["phase"] == "Failed"
    assert life.container("main")["state"]["terminated"]["exitCode"] == 3


def test_a_crashing_container_backs_off_longer_and_longer() -> None:
    life = Simulation(pod("web", exit_code="1", run_duration="1s")).run(3)
    assert life.container()["restartCount"] == 1
    assert life.container()["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert (
        "back-off 10s restarting failed container=web pod=p_default(u-1)"
        in life.container()["state"]["waiting"]["message"]
    )
    assert life.pod["status"]["phase"] == "Running"
    assert life.events.count("BackOff") == 1
    life.run(300)
    assert life.container()["restartCount"] == 5  # after 0, 10, 20, 40, 80 seconds; the next pause is 160
    assert "back-off 2m40s" in life.container()["state"]["waiting"]["message"]


def test_only_failures_are_restarted_on_failure() -> None:
    life = Simulation(pod("web", policy="OnFailure", exit_code="0", run_duration="1s")).run(10)
    assert life.pod["status"]["phase"] == "Succeeded"
    assert life.container()["restartCount"] == 0


def test_init_containers_run_in_order_and_sidecars_stay() -> None:
    life = Simulation(pod("web", init=("one", "two"), sidecars=("proxy",), one__run_duration="5s"))
    life.run(2)
    assert life.pod["status"]["phase"] == "Pending"
    assert life.container("one", "initContainerStatuses")["state"].keys() == {"running"}
    assert life.container("two", "initContainerStatuses")["state"]["waiting"]["reason"] == "PodInitializing"
    assert life.condition("Initialized")["message"] == "containers with incomplete status: [one two proxy]"
    life.run(10)
    assert life.pod["status"]["phase"] == "Running"
    assert life.container("proxy", "initContainerStatuses")["ready"]
    assert life.container("two", "initContainerStatuses")["state"]["terminated"]["exitCode"] == 0


def test_a_failing_init_container_keeps_the_pod_from_starting() -> None:
    life = Simulation(pod("web", init=("one",), one__exit_code="1")).run(5)
    assert life.pod["status"]["phase"] == "Pending"
    assert life.container("one", "initContainerStatuses")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    final = Simulation(pod("web", init=("one",), policy="Never", one__exit_code="1")).run(5)
    assert final.pod["status"]["phase"] == "Failed"


def test_an_image_that_cannot_be_pulled() -> None:
    life = Simulation(pod("web", image_pull_error="not found")).run(1)
    assert life.container()["state"]["waiting"]["reason"] == "ErrImagePull"
    life.run(5)
    assert life.container()["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert life.pod["status"]["phase"] == "Pending"
    assert life.events == ["Pulling", "Failed", "Failed", "BackOff", "Failed"]


def test_readiness_may_come_late_or_never() -> None:
    late = Simulation(pod("web", ready_delay="10s")).run(5)
    assert (late.pod["status"]["phase"], late.condition("Ready")["status"]) == ("Running", "False")
    assert late.run(10).condition("Ready")["status"] == "True"
    assert Simulation(pod("web", ready_delay="never")).run(1000).condition("Ready")["status"] == "False"


def test_readiness_gates_are_honoured() -> None:
    subject = pod("web")
    subject["spec"]["readinessGates"] = [{"conditionType": "example.com/open"}]
    life = Simulation(subject).run(5)
    assert life.condition("Ready")["reason"] == "ReadinessGatesNotReady"
    assert life.condition("ContainersReady")["status"] == "True"
    life.pod["status"]["conditions"].append({"type": "example.com/open", "status": "True"})
    life.run(1)
    assert life.condition("Ready")["status"] == "True"
    assert life.condition("example.com/open")["status"] == "True"


def test_deletion_stops_containers_and_ends_the_pod() -> None:
    life = Simulation(pod("web")).run(5).delete().run(1)
    assert life.deleted
    assert life.events[-1] == "Killing"


def test_stopping_takes_the_time_it_takes_within_the_grace_period() -> None:
    life = Simulation(pod("web", termination_delay="10s")).run(5).delete().run(5)
    assert not life.deleted
    assert life.condition("Ready")["status"] == "False"
    assert life.run(10).deleted
    assert life.events.count("Killing") == 1
    hurried = Simulation(pod("web", termination_delay="10m")).run(5).delete(grace=2)
    assert hurried.run(3).deleted


def test_a_deadline_fails_the_pod() -> None:
    subject = pod("web")
    subject["spec"]["activeDeadlineSeconds"] = 10
    life = Simulation(subject).run(5)
    assert life.pod["status"]["phase"] == "Running"
    life.run(10)
    assert (life.pod["status"]["phase"], life.pod["status"]["reason"]) == ("Failed", "DeadlineExceeded")


def test_annotations_that_make_no_sense_are_reported_and_ignored() -> None:
    life = Simulation(pod("web", run_duration="soon", exit_code="999")).run(5)
    assert life.events.count("InvalidAnnotation") == 2
    assert life.pod["status"]["phase"] == "Running"


durations = st.sampled_from(["0s", "100ms", "1s", "7s", "2m"])
annotation_sets = st.fixed_dictionaries(
    {},
    optional={
        "start_delay": durations,
        "ready_delay": st.one_of(durations, st.just("never")),
        "run_duration": st.one_of(durations, st.just("forever")),
        "exit_code": st.sampled_from(["0", "1", "137"]),
        "image_pull_error": st.just("denied"),
        "termination_delay": durations,
        "one__exit_code": st.sampled_from(["0", "2"]),
        "one__run_duration": durations,
    },
)


@settings(max_examples=150, deadline=None)
@given(
    annotations=annotation_sets,
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    extra=st.sampled_from([(), ("one",), ("one", "side")]),
    gaps=st.lists(st.floats(0.01, 90), min_size=1, max_size=12),
    delete_at=st.one_of(st.none(), st.integers(0, 11)),
)
def test_whatever_happens_the_status_stays_truthful(
    annotations: dict[str, str], policy: str, extra: tuple[str, ...], gaps: list[float], delete_at: int | None
) -> None:
    made = pod("web", policy=policy, init=extra[:1], sidecars=extra[1:], **annotations)
    life = Simulation(made)
    restarts = 0
    for number, gap in enumerate(gaps):
        life.step()
        again = look(life.pod, HOST, life.now)
        pulling = "ErrImagePull" in str(life.container()["state"])  # a waiting state has no time in it
        if (life.wake is None or life.wake > 1) and not life.deleted and not pulling:  # nor has a status fractions
            assert again.events == []
            assert again.status == life.pod["status"]
        status = life.pod["status"]
        web = life.container()
        assert web["restartCount"] >= restarts
        restarts = web["restartCount"]
        assert len(web["state"]) == 1
        if web["ready"]:
            assert "running" in web["state"]
        if status["phase"] in ("Succeeded", "Failed"):
            assert "running" not in web["state"]
            assert life.condition("Ready")["status"] == "False"
        elif not life.deleted and life.wake is None:
            assert web["state"].keys() & {"running", "waiting"}
        if life.deleted:
            return
        if number == delete_at:
            life.delete(5)
        life.now += timedelta(seconds=gap)
    terminal = [phase for phase in life.phases if phase in ("Succeeded", "Failed")]
    assert len(set(terminal)) <= 1
    if "metadata" in life.pod and life.pod["metadata"].get("deletionTimestamp"):
        life.now += timedelta(seconds=6)
        life.step()
        assert life.deleted
