"""The page of checks and stories: `python -m tests.model.stories > docs/proof-stories.md`."""

from tests.model.checks import CHECKS, MUTANTS, Check, Result, run

_HEAD = """# What spin found

Made by `python -m tests.model.stories > docs/proof-stories.md`; [proof.md](proof.md) says what it means.
Seconds are what one search takes of one core of an ordinary machine; compiling takes one or two more.
"""


def main() -> None:
    """Run all checks and mutants, and print the page."""
    checks = [(check, run(check)) for check in CHECKS]
    mutants = [(mutant, run(mutant)) for mutant in MUTANTS]
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
