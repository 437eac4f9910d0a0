"""Each line of docs/faults.md names scenarios that exist."""

import re
from pathlib import Path

import pytest

from benchmarks.faults import FAULTS

ROOT = Path(__file__).parents[2]


def named_in(file: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize("part", sorted({part for fault in FAULTS for part in fault.tests}))
def test_a_scenario_that_is_named_exists(part: str) -> None:
    file, _, name = part.rpartition("::")
    if part.startswith("tests/"):
        assert (ROOT / (file or name)).is_file()
        assert not file or name in named_in(ROOT / file)
    elif part.endswith(".py"):
        assert list((ROOT / "tests/faults").rglob(part))
    else:
        found = set().union(*map(named_in, (ROOT / "tests/faults").rglob("test_*.py")))
        assert any(each.startswith(part) for each in found)


def test_every_scenario_of_the_fault_suite_is_named() -> None:
    parts = tuple({part for fault in FAULTS for part in fault.tests})
    for file in (ROOT / "tests/faults").rglob("test_*.py"):
        whole = any(str(file).endswith(f"/{part}") for part in parts)
        assert whole or all(name.startswith(parts) for name in named_in(file)), file


def test_the_page_has_every_fault() -> None:
    page = (ROOT / "docs/faults.md").read_text()
    assert [fault.what for fault in FAULTS if f"| {fault.what} | {fault.outcome} |" not in page] == []
