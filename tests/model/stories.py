"""The page of checks and stories: `python -m tests.model.stories > docs/proof-stories.md`."""

import os
from concurrent.futures import ThreadPoolExecutor

from tests.model.checks import CHECKS, MUTANTS, Check, Result, run

_HEAD = """# What spin found

Made by `python -m tests.model.stories > docs/proof-stories.md`; [proof.md](proof.md) says what it means.
Seconds are those of one search on one core of an ordinary machine; compiling takes another one or two.
"""


def main() -> None:
    """Run all checks and mutants, two at a time, and print the page."""
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        checks = list(zip(CHECKS, pool.map(run, CHECKS), strict=True))
        mutants = list(zip(MUTANTS, pool.map(run, MUTANTS), strict=True))
    print("\n".join([_HEAD, *_table(checks), "", *_stories(mutants)]))  # noqa: T201


def _table(checks: list[tuple[Check, Result]]) -> list[str]:
    lines = [
        "## The protocol as it is",
        "",
        "| check | bounds | states | s | |",
        "|---|---|---:|---:|---|",
    ]
    for check, result in checks:
        bounds = check.defines.replace("-D", "")
        held = "broken" if result.broken else "holds"
        lines.append(f"| {check.name} | `{bounds}` | {result.states:,} | {result.seconds} | {held} |")
    return lines


def _stories(mutants: list[tuple[Check, Result]]) -> list[str]:
    lines = ["## Without a guard", ""]
    for mutant, result in mutants:
        lines += [f"### {mutant.guard[0].upper()}{mutant.guard[1:]}", "", f"Taken out (`{mutant.name}`):", ""]
        lines += [f"{number}. {line}" for number, line in enumerate(result.story, 1)]
        lines.append("")
    return lines


if __name__ == "__main__":
    main()
