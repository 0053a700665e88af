"""Ids rise, are UUIDs of version 7, and tell when they were made."""

from __future__ import annotations

import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.ledger import Ids, ids


def test_an_id_is_a_uuid_of_version_7_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = Ids().new()
    found = UUID(bytes=made)
    assert (found.version, found.variant) == (7, "specified in RFC 4122")
    assert ids.text(made) == str(found)
    assert before <= ids.milliseconds(made) <= time.time_ns() // 1_000_000
    assert ids.first_at(ids.milliseconds(made)) <= found < ids.first_at(ids.milliseconds(made) + 1)


@given(st.lists(st.integers(0, 2**47), min_size=1, max_size=200))
def test_ids_rise_whatever_the_clock_does(clock: list[int]) -> None:
    times = iter(clock)
    maker = Ids()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: next(times) * 1_000_000)
        made = [maker.new() for _ in clock]
    assert made == sorted(set(made))
    assert {UUID(bytes=each).version for each in made} == {7}
    assert {UUID(bytes=each).variant for each in made} == {"specified in RFC 4122"}


@given(st.integers(0, 2**127))
def test_what_follows_an_id_is_one_too(number: int) -> None:
    number = number & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    after = UUID(int=ids._after(number))
    assert after.int > number
    assert (after.version, after.variant) == (7, "specified in RFC 4122")
