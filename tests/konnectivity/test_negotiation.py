"""What our own programs announce to each other, and that nobody else's headers are taken for it."""

from __future__ import annotations

import pytest

from bowsprit.konnectivity.negotiation import peer_window, probe_interval
from bowsprit.net.egress.packets import PROBE_HEADER, WINDOW_HEADER


@pytest.mark.parametrize(
    ("announced", "window"),
    [
        ([], None),
        (["2097152"], 2_097_152),
        (["9999999999"], 64 * 1024 * 1024),
        (["0"], None),
        (["-1"], None),
        (["1e6"], None),
        (["²"], None),
        (["٣"], None),
        (["99999999999"], None),
        (["1", "2"], None),
    ],
)
def test_the_window_of_a_peer_of_ours(announced: list[str], window: int | None) -> None:
    assert peer_window([("agentid", "a"), *((WINDOW_HEADER, value) for value in announced)]) == window


@pytest.mark.parametrize(("announced", "seconds"), [("", 1.0), ("250", 0.25), ("1", 0.1), ("x", 1.0), ("60000", 60.0)])
def test_how_often_an_agent_of_ours_pings(announced: str, seconds: float) -> None:
    assert probe_interval([(PROBE_HEADER, announced)]) == seconds
