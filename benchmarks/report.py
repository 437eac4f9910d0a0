"""What a benchmark measured, and the command that each benchmark is."""

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class Result(NamedTuple):
    """One line: ours against a contender of the same run, or against a limit.

    Attributes:
        what: what was measured, and on which side.
        ours: our median.
        against: the contender, or what the limit is.
        theirs: its median.
        unit: a rate ends with "/s", and more is better; of anything else less is.
        aim: the least ratio that is wanted; None if the line only informs.
    """

    what: str
    ours: float
    against: str
    theirs: float
    unit: str
    aim: float | None = 1.0

    @property
    def ratio(self) -> float:
        """Above 1: ours is better."""
        better, worse = (self.ours, self.theirs) if self.unit.endswith("/s") else (self.theirs, self.ours)
        return better / worse if worse else float("inf")

    def cells(self) -> list[str]:
        """As it stands in a table."""
        aim = "" if self.aim is None else f"{self.aim:.2f}"
        missed = self.aim is not None and self.ratio < self.aim
        return [
            self.what,
            f"{amount(self.ours)} {self.unit}",
            f"{self.against}: {amount(self.theirs)} {self.unit}",
            f"{self.ratio:.2f}",
            f"{aim} (missed)" if missed else aim,
        ]


HEADINGS = ("what", "ours", "against", "ratio", "aim")


def amount(value: float) -> str:
    """A number with three telling digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """What it was measured on."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in told if "model name" in line), platform.machine()
    )
    python, sqlite = platform.python_version(), sqlite3.sqlite_version
    return f"{model}, {os.cpu_count()} cores, Python {python}, SQLite {sqlite}"


def command(doc: str | None, measure: Callable[[bool], Awaitable[list[Result]]]) -> None:
    """Be the command of one benchmark.

    Args:
        doc: its description.
        measure: makes the measurements; its argument is whether to be quick.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    results = asyncio.run(_measured(measure, arguments.quick))
    if arguments.json:
        json.dump(results, sys.stdout)
        return
    table = Table(*HEADINGS, title=machine())
    for result in results:
        table.add_row(*result.cells())
    Console(width=None if sys.stdout.isatty() else 120).print(table)


async def _measured(measure: Callable[[bool], Awaitable[list[Result]]], quick: bool) -> list[Any]:
    return await measure(quick)
