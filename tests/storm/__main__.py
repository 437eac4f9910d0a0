"""A storm over real processes: `python -m tests.storm --seed N --minutes M`.

Its faults are the same for the same seed; when they meet which step of a process is up to the kernel. After a
failure everything is kept, and shorter and shorter beginnings of the same storm are tried: the shortest that
still fails is printed.
"""

import argparse
import asyncio
import sys
import time

from tests.storm.run import CALM_S, Outcome, storm
from tests.storm.stores import STORES


def main() -> int:
    """Run storms; the exit status is 0 where all was well."""
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--steps", type=int, help="end after so many faults")
    parser.add_argument("--store", choices=list(STORES), default="sqlite")
    parser.add_argument(
        "--calm",
        type=float,
        default=CALM_S,
        help="end, when no row moves for so many seconds",
    )
    parser.add_argument("--no-prefix", action="store_true", help="don't look for the shortest that fails")
    given = parser.parse_args()
    outcome = asyncio.run(storm(given.seed, given.minutes * 60, given.steps, given.store, given.calm))
    _tell(given.seed, outcome)
    if _failed(outcome) and not given.no_prefix:
        steps = _shortest(given.seed, given.minutes * 60, outcome.steps, given.store)
        again = f"--seed {given.seed} --minutes 60 --steps {steps} --store {given.store}"
        print(f"still fails: python -m tests.storm {again}")  # noqa: T201
    return 1 if _failed(outcome) else 0


def _shortest(seed: int, seconds: float, fails: int, kind: str) -> int:
    holds = 0
    while fails - holds > 1:
        middle = (holds + fails) // 2
        outcome = asyncio.run(storm(seed, seconds, middle, kind))
        _tell(seed, outcome)
        holds, fails = (holds, middle) if _failed(outcome) else (middle, fails)
    return fails


def _failed(outcome: Outcome) -> bool:
    return bool(outcome.wrong or outcome.strayed)


def _tell(seed: int, outcome: Outcome) -> None:
    found = f"wrong, all is kept in {outcome.kept}" if _failed(outcome) else "all is well"
    print(f"seed {seed}: {outcome.steps} faults, {outcome.rows} rows, {outcome.looks} looks: {found}")  # noqa: T201
    print(f"  {', '.join(f'{name} {times}' for name, times in sorted(outcome.done.items()))}")  # noqa: T201
    for name, lines in (("checker", outcome.wrong), ("replay", outcome.strayed)):
        for line in lines[:10]:
            print(f"  {name}: {line}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
