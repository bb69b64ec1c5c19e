"""Extents: which records come with one read."""

import numpy as np
import pytest

from lexmax.index.kernels.reading import plan_extents


def plan(starts, n_bytes, alignment=512, max_gap=2048, max_bytes=8192, room=1 << 20):
    arrays = np.full((6, len(starts) + 1), -1, np.int64)
    n, n_records = plan_extents(
        np.array(starts, np.int64), np.array(n_bytes, np.int64), alignment, max_gap, max_bytes, room, *arrays
    )  # fmt: skip
    offsets, needed, lengths, at, first, record_at = arrays
    return offsets[:n], needed[:n], lengths[:n], at[:n], first[: n + 1], record_at[:n_records]


def test_neighbours_are_joined_up_to_a_gap_and_a_length():
    offsets, needed, lengths, at, first, record_at = plan([600, 1000, 5000, 7000, 20000], [100, 900, 500, 6000, 40])
    assert offsets.tolist() == [512, 4608, 6656, 19968]  # 1900 to 5000 is too far, 5000 to 13000 too long
    assert needed.tolist() == [1388, 892, 6344, 72]
    assert lengths.tolist() == [1536, 1024, 6656, 512]
    assert at.tolist() == [0, 1536, 2560, 9216]
    assert first.tolist() == [0, 2, 3, 4, 5]
    assert record_at.tolist() == [88, 488, 1536 + 392, 2560 + 344, 9216 + 32]


@pytest.mark.parametrize("alignment", [4, 512, 4096])
@pytest.mark.parametrize("seed", range(20))
def test_every_record_lies_in_its_extent(alignment, seed):
    rng = np.random.default_rng(seed)
    n_bytes = 4 * rng.integers(1, 2000, 60)
    ends = np.cumsum(n_bytes + 4 * rng.integers(0, 3000, 60) * (rng.random(60) < 0.5))
    picks = np.sort(rng.integers(0, 60, 40))  # some twice
    starts, n_bytes = (ends - n_bytes)[picks], n_bytes[picks]
    room = int(rng.choice([1 << 15, 1 << 30]))
    offsets, needed, lengths, at, first, record_at = plan(starts, n_bytes, alignment, 12 << 10, 32 << 10, room)
    assert 1 <= len(record_at) <= len(starts)
    assert not (np.concatenate([offsets, lengths, at]) % alignment).any()
    assert (needed <= lengths).all()
    assert (needed + alignment > lengths).all()
    assert np.array_equal(at, np.cumsum(lengths) - lengths)
    assert at[-1] + lengths[-1] <= room
    for extent in range(len(offsets)):
        records = slice(first[extent], first[extent + 1])
        assert np.array_equal(record_at[records] - at[extent], starts[records] - offsets[extent])
        assert (starts[records] + n_bytes[records]).max() == offsets[extent] + needed[extent]
        if first[extent + 1] - first[extent] > 1:
            assert lengths[extent] <= 32 << 10 or len(set(starts[records])) == 1
