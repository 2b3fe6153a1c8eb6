"""Benchmarks: ``make bench`` or ``python -m bench [TOPIC...]``.

Every figure is a ratio to a floor or a peer that runs in the same minute on the same machine; absolute numbers are
printed beside it for orientation only. A topic is a module of this package with ``def run() -> Iterable[Row]``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    ``ours`` and ``floor`` are in ``unit``; ``ratio`` is the figure to judge, ``aim`` what it should reach, written like
    ``>= 0.5`` or ``<= 4``; empty when there is no aim.
    """

    name: str
    ours: float
    floor: float
    unit: str
    ratio: float
    aim: str = ""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None without one."""
        if not self.aim:
            return None
        sign, _, limit = self.aim.partition(" ")
        return self.ratio >= float(limit) if sign == ">=" else self.ratio <= float(limit)
