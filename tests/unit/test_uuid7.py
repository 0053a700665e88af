"""Ids rise, are UUIDs of version 7, and tell when they were made."""

from __future__ import annotations

import itertools
import random
import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan import uuid7
from peerloan.uuid7 import IdGenerator


def test_an_id_is_a_uuid_of_version_7_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = IdGenerator().new()
    found = UUID(bytes=made)
    assert (found.version, found.variant) == (7, "specified in RFC 4122")
    assert uuid7.text(made) == str(found)
    assert before <= uuid7.milliseconds(made) <= time.time_ns() // 1_000_000
    assert (
        uuid7.first_at(uuid7.milliseconds(made))
        <= found
        < uuid7.first_at(uuid7.milliseconds(made) + 1)
    )


# Steps of hours, and of seconds.
CLOCKS = st.lists(st.integers(0, 2**47), min_size=1, max_size=200) | st.lists(
    st.integers(0, 200_000), min_size=1, max_size=200
)


@given(CLOCKS)
def test_ids_rise_whatever_the_clock_does(clock: list[int]) -> None:
    times = iter(clock)
    maker = IdGenerator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: next(times) * 1_000_000)
        made = [maker.new() for _ in clock]
    assert len(set(made)) == len(made)
    assert {UUID(bytes=each).version for each in made} == {7}
    assert {UUID(bytes=each).variant for each in made} == {"specified in RFC 4122"}
    # But for one that is dated by the clock again, for it was set back by more than a minute.
    for (before, after), now in zip(itertools.pairwise(made), clock[1:], strict=True):
        assert after > before or uuid7.milliseconds(before) - now > uuid7.MAX_AHEAD_MS
        # Of many in one millisecond the last may be of the next.
        assert 0 <= uuid7.milliseconds(after) - now <= uuid7.MAX_AHEAD_MS + 1
    assert maker.newest_ms == max(map(uuid7.milliseconds, made))


@given(st.integers(0, 2**127))
def test_what_follows_an_id_is_one_too(number: int) -> None:
    number = number & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    after = UUID(int=uuid7._after(number))
    assert after.int > number
    assert (after.version, after.variant) == (7, "specified in RFC 4122")


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20), st.sampled_from([0, 2**74 - 1, 2**62 - 3])
)
def test_many_at_once_rise_as_one_by_one(counts: list[int], bits: int) -> None:
    maker = IdGenerator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "getrandbits", lambda _: bits)
        made = [each for count in counts for each in (*maker.many(count), maker.new())]
    assert len(made) == sum(counts) + len(counts)
    assert made == sorted(set(made))
    assert {UUID(bytes=each).version for each in made} == {7}
    assert {UUID(bytes=each).variant for each in made} == {"specified in RFC 4122"}
