"""What a decky's project and directory are called: something that Compose takes, and nobody else's."""

import re

from hypothesis import given
from hypothesis import strategies as st

from worker.runtimes.base import project_name

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
near = st.from_regex(r"[aA][aA._-]{0,4}(_[0-9a-f]{16})?", fullmatch=True)


@given(names)
def test_a_project_has_a_name_that_compose_takes(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", project_name(name))


def test_a_name_that_compose_takes_stays() -> None:
    assert project_name("decky-01") == "decky-01"
    assert project_name("Decky_01.lan").startswith("decky-01-lan_")


@given(st.sets(near, min_size=2, max_size=20))
def test_no_two_deckies_share_a_project(several: set[str]) -> None:
    derived = {project_name(name) for name in several}
    assert len(derived) == len(several)
    assert not {project_name(name) for name in derived - several} & derived
