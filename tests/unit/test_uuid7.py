"""Ids ascend, are UUIDs of version 7, and contain the time of their creation."""

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


def test_an_id_is_a_uuid_of_version_7_with_the_current_time() -> None:
    before = time.time_ns() // 1_000_000
    new_id = IdGenerator().new()
    uuid = UUID(bytes=new_id)
    assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
    assert uuid7.text(new_id) == str(uuid)
    assert before <= uuid7.milliseconds(new_id) <= time.time_ns() // 1_000_000
    assert (
        uuid7.first_at(uuid7.milliseconds(new_id))
        <= uuid
        < uuid7.first_at(uuid7.milliseconds(new_id) + 1)
    )


# Times in milliseconds that differ by hours or more, and by seconds.
CLOCKS = st.lists(st.integers(0, 2**47), min_size=1, max_size=200) | st.lists(
    st.integers(0, 200_000), min_size=1, max_size=200
)


@given(CLOCKS)
def test_ids_ascend_unless_the_clock_is_set_back_far(clock: list[int]) -> None:
    times = iter(clock)
    generator = IdGenerator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: next(times) * 1_000_000)
        ids = [generator.new() for _ in clock]
    assert len(set(ids)) == len(ids)
    assert {UUID(bytes=value).version for value in ids} == {7}
    assert {UUID(bytes=value).variant for value in ids} == {"specified in RFC 4122"}
    # The exception: ids start again at the clock's time if it was set back by more than a minute.
    for (before, after), now_ms in zip(itertools.pairwise(ids), clock[1:], strict=True):
        assert after > before or uuid7.milliseconds(before) - now_ms > uuid7.MAX_AHEAD_MS
        # The random bits may overflow into the next millisecond.
        assert 0 <= uuid7.milliseconds(after) - now_ms <= uuid7.MAX_AHEAD_MS + 1
    assert generator.newest_ms == max(map(uuid7.milliseconds, ids))


@given(st.integers(0, 2**47), st.integers(0, 2**74 - 1) | st.sampled_from([2**74 - 1, 2**62 - 1]))
def test_a_second_id_with_the_same_time_and_bits_follows_the_first(now_ms: int, bits: int) -> None:
    generator = IdGenerator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now_ms * 1_000_000)
        patch.setattr(random, "getrandbits", lambda _: bits)
        first, second = UUID(bytes=generator.new()), UUID(bytes=generator.new())
    assert second > first
    assert (second.version, second.variant) == (7, "specified in RFC 4122")


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20), st.sampled_from([0, 2**74 - 1, 2**62 - 3])
)
def test_ids_made_in_batches_and_one_by_one_ascend(counts: list[int], bits: int) -> None:
    generator = IdGenerator()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "getrandbits", lambda _: bits)
        ids = [id_ for count in counts for id_ in (*generator.many(count), generator.new())]
    assert len(ids) == sum(counts) + len(counts)
    assert ids == sorted(set(ids))
    assert {UUID(bytes=value).version for value in ids} == {7}
    assert {UUID(bytes=value).variant for value in ids} == {"specified in RFC 4122"}
