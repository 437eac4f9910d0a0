"""The model has teeth: without any one of its guards spin finds a run that breaks a promise."""

import pytest

from tests.model.checks import CHECKS, MUTANTS, Check, need_spin, run


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_missing_guard_is_found(mutant: Check) -> None:
    need_spin()
    result = run(mutant)
    assert result.broken, f"nothing goes wrong without: {mutant.guard}"
    assert "BROKEN" in result.story[-1]


def test_each_mutant_differs_from_a_check_that_holds_by_one_guard() -> None:
    bounds = {(check.model, frozenset(check.defines.split())) for check in CHECKS}
    for mutant in MUTANTS:
        assert any(
            mutant.model == model and _without_faults(mutant.defines) == _without_faults(" ".join(held))
            for model, held in bounds
        ), mutant.name


def _without_faults(defines: str) -> set[str]:
    return {define for define in defines.split() if not define.startswith("-DFAULTS")}
