import math

import numpy as np
import pytest

from lexmax.retrieval.pipelines.fusion import RRF_CONSTANT, fuse, fuse_scores


def ranking(*pairs):
    return np.array([number for number, _ in pairs], np.int32), np.array([score for _, score in pairs], np.float32)


A = ranking((7, 9.0), (3, 8.0), (5, 1.0))
B = ranking((5, 0.3), (7, 0.2))


def test_reciprocal_ranks_are_summed():
    fused = fuse([A, B])
    c = RRF_CONSTANT
    expected = {7: 1 / (c + 1) + 1 / (c + 2), 5: 1 / (c + 3) + 1 / (c + 1), 3: 1 / (c + 2)}
    assert fused.doc_nums.tolist() == [7, 5, 3]
    assert fused.scores.tolist() == pytest.approx([expected[d] for d in (7, 5, 3)])
    assert fused.parts.sum(axis=0).tolist() == pytest.approx(fused.scores.tolist())


def softmax_of_z(scores):
    """The definition, number by number."""
    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((s - mean) ** 2 for s in scores) / len(scores))
    shares = [math.exp((s - mean) / deviation) if deviation else 1.0 for s in scores]
    return [share / sum(shares) for share in shares]


def test_weights_are_masses_that_softmax_distributes():
    fused = fuse([A, B], [0.3, 0.7])
    a, b = softmax_of_z([9.0, 8.0, 1.0]), softmax_of_z([0.3, 0.2])
    found = dict(zip(fused.doc_nums.tolist(), fused.scores.tolist(), strict=True))
    assert found == pytest.approx({7: 0.3 * a[0] + 0.7 * b[1], 5: 0.3 * a[2] + 0.7 * b[0], 3: 0.3 * a[1]}, rel=1e-5)
    assert sum(found.values()) == pytest.approx(1.0)


def test_a_flat_ranking_cannot_outvote_a_sure_one():
    flat = ranking((1, 5.01), (2, 5.0), (3, 5.0), (4, 5.0), (5, 5.0), (6, 5.0), (7, 5.0), (8, 5.0))
    same = ranking(*((doc, 5.0) for doc in range(1, 9)))
    sure = ranking((8, 9.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 1.0), (6, 1.0), (7, 1.0))
    assert fuse([same, sure], [0.5, 0.5]).doc_nums[0] == 8
    assert fuse([same, sure], [0.5, 0.5]).parts[0].tolist() == [0.0625] * 8
    assert fuse([flat, sure], [0.4, 0.6]).doc_nums[0] == 8


def test_ties_go_to_the_lower_number_and_equal_scores_share_the_mass():
    fused = fuse([ranking((9, 1.0), (2, 1.0)), ranking((4, 5.0))], [1.0, 1.0])
    assert fused.doc_nums.tolist() == [4, 2, 9]
    assert fused.scores.tolist() == [1.0, 0.5, 0.5]


def test_empty_rankings():
    empty = ranking()
    assert fuse([empty, empty]).doc_nums.tolist() == []
    assert fuse([empty, B], [1.0, 1.0]).doc_nums.tolist() == [5, 7]
    assert fuse_scores(empty[0], [empty[1]]).scores.tolist() == []


def test_scores_of_all_candidates_are_fused():
    candidates = np.array([8, 1, 4], np.int32)
    alone = fuse_scores(candidates, [np.array([1.0, 3.0, 3.0], np.float32)])
    assert (alone.doc_nums.tolist(), alone.scores.tolist()) == ([1, 4, 8], [3.0, 3.0, 1.0])
    both = fuse_scores(candidates, [np.array([0.0, 5.0, 10.0], np.float32), np.array([2.0, 1.0, 0.0], np.float32)], [1.0, 2.0])
    p, q = softmax_of_z([0.0, 5.0, 10.0]), softmax_of_z([2.0, 1.0, 0.0])
    expected = {doc: p[i] + 2 * q[i] for i, doc in enumerate((8, 1, 4))}
    assert dict(zip(both.doc_nums.tolist(), both.scores.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)
    ranks = fuse_scores(candidates, [np.array([0.0, 5.0, 10.0], np.float32), np.array([2.0, 1.0, 0.0], np.float32)])
    assert ranks.doc_nums[0] in (4, 8)


@pytest.mark.parametrize("seed", range(20))
def test_against_a_dictionary(seed):
    rng = np.random.default_rng(seed)
    rankings = []
    for _ in range(rng.integers(1, 5)):
        numbers = rng.permutation(40)[: rng.integers(0, 30)].astype(np.int32)
        rankings.append((numbers, np.sort(rng.random(len(numbers)).astype(np.float32))[::-1]))
    expected = {}
    for numbers, _ in rankings:
        for rank, number in enumerate(numbers.tolist(), 1):
            expected[number] = expected.get(number, 0.0) + 1 / (RRF_CONSTANT + rank)
    fused = fuse(rankings)
    order = sorted(expected, key=lambda d: (-np.float32(expected[d]), d))
    assert fused.doc_nums.tolist() == order
