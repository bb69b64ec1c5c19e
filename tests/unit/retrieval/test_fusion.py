from itertools import permutations

import pytest

from lexmax.index.documents import Document
from lexmax.retrieval.pipelines.fusion import HybridRetriever, reciprocal_rank_fusion, weighted_sum

A = [("a", 9.0), ("b", 8.0), ("c", 1.0)]
B = [("c", 0.3), ("a", 0.2)]


def test_reciprocal_ranks_are_summed():
    fused = reciprocal_rank_fusion([A, B], 10)
    assert fused == [("a", 1 / 61 + 1 / 62), ("c", 1 / 63 + 1 / 61), ("b", 1 / 62)]
    assert reciprocal_rank_fusion([A, B], 2) == fused[:2]
    assert reciprocal_rank_fusion([A, B], 1, constant=0) == [("a", 1 + 1 / 2)]
    assert reciprocal_rank_fusion([A, B], 1, weights=[1, 3]) == [("c", pytest.approx(1 / 63 + 3 / 61))]


def test_min_max_gives_absent_documents_nothing():
    assert weighted_sum([A, B], 10) == [("a", 1 + 0), ("c", 0 + 1), ("b", 7 / 8)]
    assert weighted_sum([A, B], 10, weights=[0.5, 2]) == [("c", 2), ("a", 0.5), ("b", 0.5 * 7 / 8)]
    assert weighted_sum([[("x", 3.0)], A[:1]], 5) == [("a", 1), ("x", 1)]  # nothing to scale by


def test_z_scores_give_absent_documents_the_lowest():
    deviation = ((3.0**2 + 2.0**2 + 5.0**2) / 3) ** 0.5
    fused = dict(weighted_sum([A, B], 10, scale="z"))
    assert fused["a"] == pytest.approx(3 / deviation - 1)
    assert fused["b"] == pytest.approx(2 / deviation - 1)
    assert fused["c"] == pytest.approx(-5 / deviation + 1)
    assert weighted_sum([[("x", 3.0), ("y", 3.0)]], 5, scale="z") == [("x", 0), ("y", 0)]


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, weighted_sum, lambda r, k: weighted_sum(r, k, scale="z")])
def test_the_order_of_rankings_does_not_matter(fuse):
    rankings = [[(name, 0.1 * (7 - i)) for i, name in enumerate(names)] for names in ("abcdefg", "gcadbfe", "edgfcba")]
    fused = [fuse(list(order), 7) for order in permutations(rankings)]
    assert all(each == fused[0] for each in fused)
    assert fuse([[], []], 3) == []


def test_equal_scores_go_by_doc_id():
    assert reciprocal_rank_fusion([[("z", 1.0)], [("m", 5.0)], [("a", 0.5)]], 3) == [
        ("a", 1 / 61),
        ("m", 1 / 61),
        ("z", 1 / 61),
    ]


@pytest.mark.parametrize(
    ("rankings", "options", "message"),
    [
        ([A], {"weights": [1, 2]}, "2 weights for 1"),
        ([A], {"weights": [-1]}, "must be finite"),
        ([A], {"weights": [float("nan")]}, "must be finite"),
        ([[("a", 1.0), ("a", 0.5)]], {}, "twice"),
    ],
)
def test_wrong_arguments(rankings, options, message):
    for fuse in (reciprocal_rank_fusion, weighted_sum):
        with pytest.raises(ValueError, match=message):
            fuse(rankings, 3, **options)
        with pytest.raises(ValueError, match="k must be at least 1"):
            fuse([A], 0)
    with pytest.raises(ValueError, match="constant is -1"):
        reciprocal_rank_fusion([A], 3, constant=-1)
    with pytest.raises(ValueError, match="scale must be"):
        weighted_sum([A], 3, scale="softmax")
    with pytest.raises(ValueError, match="at least one retriever"):
        HybridRetriever([])


class Table:
    """A retriever whose rankings are given."""

    def __init__(self, ranking):
        self.ranking, self.depths = ranking, []

    def rank(self, texts, k):
        self.depths.append(k)
        return [self.ranking[:k] for _ in texts]

    def document(self, doc_id):
        return None if doc_id == "b" else Document(doc_id=doc_id, title=doc_id.upper(), text="", metadata={"n": 1})


def test_a_hybrid_ranks_and_searches():
    first, second = Table(A), Table(B)
    hybrid = HybridRetriever([first, second], depth=50)
    assert hybrid.rank(["x", "y"], 2) == [reciprocal_rank_fusion([A, B], 2)] * 2
    assert first.depths == second.depths == [50]
    results = hybrid.search("x", 60)  # b is gone meanwhile
    assert [(result.doc_id, result.title, result.metadata) for result in results] == [
        ("a", "A", {"n": 1}),
        ("c", "C", {"n": 1}),
    ]
    assert second.depths == [50, 60]
    assert HybridRetriever([first, second], depth=1).rank(["x"], 1) == [[("a", 1 / 61)]]
