"""Events are counted instead of repeated, and similar ones are combined."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bowsprit.client.events import CountCorrelator, EventRecorder, Occurrence, SeriesCorrelator, object_reference

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default", "uid": "u", "resourceVersion": "5"},
}


def occurrence(message: str = "m", reason: str = "R", **fields: Any) -> Occurrence:
    return Occurrence(object_reference(POD), "Normal", reason, message, **fields)


def test_a_reference_has_what_kubectl_describe_selects_by() -> None:
    assert object_reference(POD) == {
        "kind": "Pod",
        "namespace": "default",
        "name": "p",
        "uid": "u",
        "apiVersion": "v1",
        "resourceVersion": "5",
    }
    assert object_reference({"kind": "Node", "name": "n"}) == {"kind": "Node", "name": "n"}


def test_equal_events_are_counted() -> None:
    correlator = CountCorrelator("kubelet", "node-0")
    first = correlator.correlate(occurrence(), NOW)
    assert first is not None
    assert first.patch is None
    assert first.event["source"] == {"component": "kubelet", "host": "node-0"}
    assert (first.event["count"], first.event["firstTimestamp"]) == (1, "2026-01-01T12:00:00Z")
    second = correlator.correlate(occurrence(), NOW + timedelta(seconds=5))
    assert second is not None
    assert second.event["metadata"] == first.event["metadata"]
    assert second.patch == {"count": 2, "lastTimestamp": "2026-01-01T12:00:05Z", "message": "m"}
    other = correlator.correlate(occurrence("n"), NOW)
    assert other is not None
    assert other.patch is None


def test_many_similar_events_are_combined() -> None:
    correlator = CountCorrelator("c")
    writes = [correlator.correlate(occurrence(f"message {number}"), NOW) for number in range(12)]
    messages = [write.event["message"] for write in writes if write]
    assert messages[:9] == [f"message {number}" for number in range(9)]
    assert messages[9:] == [f"(combined from similar events): message {number}" for number in range(9, 12)]
    assert writes[11] is not None
    assert writes[11].patch is not None
    assert writes[11].patch["count"] == 3


def test_a_flood_about_one_object_is_stemmed() -> None:
    correlator = CountCorrelator("c")
    written = sum(correlator.correlate(occurrence(), NOW) is not None for _ in range(100))
    assert written == 25
    assert correlator.correlate(occurrence(), NOW + timedelta(minutes=5)) is not None


def test_a_series_is_written_when_it_starts_and_as_it_doubles() -> None:
    correlator = SeriesCorrelator("sched", "sched-host")
    first = correlator.correlate(occurrence(action="Binding"), NOW)
    assert first is not None
    assert (first.event["action"], first.event["reportingInstance"]) == ("Binding", "sched-host")
    assert first.event["eventTime"] == "2026-01-01T12:00:00.000000Z"
    counts = []
    for number in range(1, 9):
        write = correlator.correlate(occurrence(action="Binding"), NOW + timedelta(seconds=number))
        if write:
            assert write.patch is not None
            counts.append(write.patch["series"]["count"])
    assert counts == [2, 4, 8]
    later = correlator.correlate(occurrence(action="Binding"), NOW + timedelta(hours=1))
    assert later is not None
    assert later.patch is None


async def test_the_recorder_writes_in_the_background_and_survives_refusals() -> None:
    from bowsprit.machinery.errors import forbidden

    sent: list[dict[str, Any]] = []

    class Client:
        async def create(self, gvr: Any, event: dict[str, Any], *, namespace: str) -> dict[str, Any]:
            if event["reason"] == "Refused":
                raise forbidden(None, "", "no")
            sent.append(event)
            return event

        async def patch(self, gvr: Any, name: str, patch: dict[str, Any], **_: Any) -> dict[str, Any]:
            sent.append(patch)
            return patch

    recorder = EventRecorder(Client(), "c", now=lambda: NOW)  # type: ignore[arg-type]
    await recorder.start()
    recorder.event(POD, "Normal", "Refused", "x")
    recorder.event(POD, "Normal", "Fine", "x" * 5000)
    recorder.event(POD, "Normal", "Fine", "x" * 5000)
    await recorder.stop()
    assert len(sent) == 2
    assert len(sent[0]["message"]) == 1024
    assert sent[1]["count"] == 2


async def test_a_full_queue_drops_and_counts() -> None:
    recorder = EventRecorder(None, "c")  # type: ignore[arg-type]
    for number in range(1010):
        recorder.event(POD, "Normal", "R", str(number))
    assert recorder.dropped == 10
