"""The patches of the matrix fit the sources as they are; `python -m tests.model.patches` tries them."""

from pathlib import Path

import pytest

from tests.model.checks import MUTANTS
from tests.model.patches import PATCHES, Patch, copy


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_a_patch_takes_out_what_its_mutant_lacks(patch: Patch, tmp_path: Path) -> None:
    copy(patch, tmp_path)
    assert patch.name in {mutant.name for mutant in MUTANTS}
