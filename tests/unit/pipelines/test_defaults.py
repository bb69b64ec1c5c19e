import pytest

from lexmax.retrieval.pipelines.defaults import default_search
from lexmax.retrieval.pipelines.expression import parse


class Encoder:
    def __init__(self, kind, representation="sparse"):
        self.kind, self.representation = kind, representation


BM25, SPLADE, COLBERT = Encoder("bm25"), Encoder("splade"), Encoder("colbert", "tokens")
SLIM = Encoder("slim", "sparse-tokens")


@pytest.mark.parametrize(
    ("encoders", "expected"),
    [
        ({"bm25": BM25}, "bm25"),
        ({"tokens": COLBERT}, "tokens"),
        ({"bm25": BM25, "splade": SPLADE}, "bm25 + splade"),
        ({"bm25": BM25, "slim": SLIM}, "bm25 + slim"),
        (
            {"bm25": BM25, "splade": SPLADE, "colbert": COLBERT},
            "(bm25 + splade + colbert) > 0.15*bm25 + 0.25*splade + 0.6*colbert",
        ),
        ({"bm25": BM25, "a": COLBERT, "b": COLBERT}, "(bm25 + a + b) > 0.15*bm25 + 0.3*a + 0.3*b"),
        ({"a": COLBERT, "b": COLBERT}, "a + b"),
    ],
)
def test_the_default_by_the_fields(encoders, expected):
    assert default_search(encoders) == expected
    assert set(parse(expected).fields) == set(encoders)
