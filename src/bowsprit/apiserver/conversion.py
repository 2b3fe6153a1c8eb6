"""Conversions that take time: those that a webhook does.

A Version's `to_hub` and `from_hub` answer at once. Where somebody else has to be asked they raise UnpreparedError instead, unless
the answer is known already; `prepared` asks and tries again. So what converts stays plain code, whoever does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from bowsprit.machinery.objects import Obj

Result = TypeVar("Result")


class Conversion(Protocol):
    """Whoever converts the objects of one resource."""

    async def prepare(self, objects: Sequence[Obj], api_version: str) -> None:
        """Converts objects; that their conversion can be had at once holds for a while. Raises StatusError."""
        ...


class UnpreparedError(Exception):
    """An object has not been converted yet."""

    def __init__(self, conversion: Conversion, obj: Obj, api_version: str) -> None:
        super().__init__(f"not converted yet: to {api_version}")
        self.conversion = conversion
        self.obj = obj
        self.api_version = api_version


async def prepared(work: Callable[[], Result]) -> Result:
    """The result of work that converts objects; it may be begun several times, so it must change nothing.

    Raises:
        StatusError: a conversion failed.
    """
    while True:
        try:
            return work()
        except UnpreparedError as missing:
            await missing.conversion.prepare([missing.obj], missing.api_version)
