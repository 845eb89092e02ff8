"""How much an encoder tries, as a value and as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.effort import MAX_EFFORT, NO_EFFORT, Effort
from codec.errors import ConfigError

STEPS = st.integers(0, MAX_EFFORT)


@given(STEPS, STEPS)
def test_its_text_says_all(motion, ahead):
    effort = Effort(motion, ahead)
    assert Effort.of(str(effort)) == effort == Effort.of(effort)
    assert Effort.of(motion) == Effort(motion)
    assert bool(effort) == (effort != NO_EFFORT)


@pytest.mark.parametrize(
    "value",
    [-1, 1001, 2.5, True, None, "", "1001", "20+1001", "20+", "+10", "20 + 10", "1+2+3", "٣"],
)
def test_what_is_none(value):
    with pytest.raises(ConfigError, match=r"must be a whole number of 0..1000, or two such as"):
        Effort.of(value)
