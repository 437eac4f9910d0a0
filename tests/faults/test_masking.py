"""Lines that a decoy prints on purpose: masked in linear time, and no secret gets through."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.documents.masking import Mask, masked, without_credentials

# What `without_credentials` does, as one would write it down: correct, and slow on purpose-made lines.
SPECIFICATION = re.compile(r"([a-z0-9+.-]://)[^\s/@]*:\S*@")
LONG = 1_000_000
"""Characters: a minute and more for anything that looks at a line twice for each of its characters."""

url_like = st.text("a1:/@. \n", max_size=24)


@given(url_like)
def test_credentials_are_masked_as_specified(text: str) -> None:
    assert without_credentials(text) == SPECIFICATION.sub(r"\1***@", text)


@pytest.mark.parametrize("compose", [None, [], {}, {"services": ["d"]}, {"services": {"d": "x"}}])
def test_a_request_that_anybody_wrote_is_shown(compose: object) -> None:
    assert masked({"compose": compose}) == {"compose": compose}


@pytest.mark.parametrize("unit", ["a", "a://", "a://:", "a://:@", "a:/", ":", "@", "://a:b@c ", "a.b+c-"])
def test_a_line_of_any_length_is_masked_in_one_pass(unit: str) -> None:
    line = "a://" + unit * (LONG // len(unit))
    assert len(without_credentials(line)) <= len(line)


@given(st.lists(st.text("abc", min_size=4, max_size=9), max_size=8), st.text("abc ", max_size=200))
def test_no_secret_is_left_in_a_line(secrets: list[str], line: str) -> None:
    document = {"services": {"d": {"environment": {f"TOKEN_{n}": text for n, text in enumerate(secrets)}}}}
    masked = Mask(document)(line)
    assert not any(secret in masked for secret in secrets)
    assert masked == line or any(secret in line for secret in secrets)


def test_secrets_with_a_long_common_beginning_cost_no_more() -> None:
    secrets = {f"TOKEN_{n}": "a" * 1000 + str(n) for n in range(1000)}
    mask = Mask({"services": {"d": {"environment": secrets}}})
    line = "a" * 4096
    assert mask(line) == line
    assert mask(f"{line}7 {line}") == f"{'a' * 3096}*** {line}"
