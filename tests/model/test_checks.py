"""The model keeps its promises in every run within its bounds."""

import pytest

from tests.model.checks import CHECKS, Check, need_spin, run

pytestmark = pytest.mark.timeout(900)  # some seconds each, on a machine that is not busy


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_the_model_holds(check: Check) -> None:
    need_spin()
    result = run(check)
    assert not result.broken, "\n".join(result.story)
