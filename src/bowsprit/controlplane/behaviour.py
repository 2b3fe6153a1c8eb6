"""What a kind does beyond its schema: the parts that `kinds` joins with the generated data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bowsprit.apiserver.resource import Convert, ScaleSubresource
from bowsprit.apiserver.strategy import Strategy
from bowsprit.machinery.objects import Obj

Cells = Callable[[Obj, datetime], list[Any]]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One kind's functions.

    ``status`` serves the ``/status`` endpoint, ``others`` further endpoints of the same object (approval, resize). ``cells``
    fills the recorded columns, ``order`` sorts the rows of a list. ``convert`` maps a version to the functions from and to
    the stored version.
    """

    strategy: Strategy = field(default_factory=Strategy)
    status: Strategy | None = None
    others: Mapping[str, Strategy] = field(default_factory=dict)
    cells: Cells | None = None
    cells_of: Mapping[str, Cells] = field(default_factory=dict)
    conditions: Callable[[Obj], list[Obj]] | None = None
    order: Callable[[Obj], Any] | None = None
    scale: ScaleSubresource | None = None
    convert: Mapping[str, tuple[Convert, Convert]] = field(default_factory=dict)
    ttl_seconds: int | None = None
