"""Run the benchmarks and print one table per topic."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from bench import Row


def show(row: Row) -> str:
    """One line of the table."""
    verdict = {None: "", True: "reached", False: "MISSED"}[row.reached]
    return (
        f"  {row.name:<44} {row.ours:>12,.4g} {row.floor:>12,.4g} {row.unit:<10} "
        f"{row.ratio:>8.3g}  {row.aim:<8} {verdict:<8} {row.note}"
    ).rstrip()


def main() -> None:
    """Run the named topics, or all."""
    topics = sorted(
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if not module.name.startswith("_")
    )
    chosen = sys.argv[1:] or topics
    if unknown := set(chosen) - set(topics):
        sys.exit(f"error: no benchmark {', '.join(sorted(unknown))}\nhint: there are {', '.join(topics)}")
    for topic in chosen:
        print(f"{topic}\n  {'figure':<44} {'ours':>12} {'floor':>12} {'unit':<10} {'ratio':>8}  aim")
        for row in importlib.import_module(f"bench.{topic}").run():
            print(show(row), flush=True)


if __name__ == "__main__":
    main()
