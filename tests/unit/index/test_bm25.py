from math import log

import numpy as np
import pytest

from lexmax.index.kernels import read_only
from lexmax.index.kernels.terms import times_idf
from lexmax.index.sparse.bm25 import Bm25
from lexmax.index.sparse.quantize import fit_scale, measured_error, quantize
from lexmax.retrieval.build import build_index
from lexmax.retrieval.retriever import Retriever


def test_weights_are_the_formula():
    counts, indptr = np.array([1, 3, 2], np.uint8), np.array([0, 2, 3], np.int64)
    weights = Bm25(k1=1.2, b=0.75).document_weights(counts, indptr, np.array([4, 2], np.int64), 3.0)
    norm = [1.2 * (1 - 0.75 + 0.75 * 4 / 3), 1.2 * (1 - 0.75 + 0.75 * 2 / 3)]
    assert weights == pytest.approx([1 / (1 + norm[0]), 3 / (3 + norm[0]), 2 / (2 + norm[1])], abs=1e-6)


def test_idf_is_lucenes():
    weights = times_idf(read_only(np.array([1, 2], np.float32)), np.array([3, 3], np.int64), 10)
    assert weights[0] == pytest.approx(log(1 + (10 - 3 + 0.5) / (3 + 0.5)), abs=1e-6)
    assert weights[1] == 2 * weights[0]


@pytest.mark.parametrize(("k1", "b"), [(-1, 0.5), (1, 1.5), (float("nan"), 0.5)])
def test_parameters_out_of_range_are_refused(k1, b):
    with pytest.raises(ValueError, match="k1"):
        Bm25(k1=k1, b=b)


def test_scores_are_bm25_within_the_quantisation(tmp_path):
    texts = ["red apple apple", "green apple pear", "pear pear pear plum quince fig", "stone"]
    lines = "".join(f'{{"_id": "{i}", "text": "{text}"}}\n' for i, text in enumerate(texts))
    (tmp_path / "c.jsonl").write_text(lines)
    build_index([str(tmp_path / "c.jsonl")], tmp_path / "idx", encoders=["bm25"])
    scores = dict(Retriever.open(tmp_path / "idx").rank(["apple pear"], 10)[0])
    average = sum(len(text.split()) for text in texts) / 4

    def part(tf, df, length):
        return log(1 + (4 - df + 0.5) / (df + 0.5)) * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * length / average))

    expected = {"0": part(2, 2, 3), "1": part(1, 2, 3) + part(1, 2, 3), "2": part(3, 2, 6)}
    assert set(scores) == set(expected)
    for doc_id, score in expected.items():
        assert scores[doc_id] == pytest.approx(score, abs=0.01)


def test_quantisation_and_its_error():
    weights = np.array([0.001, 0.5, 1.0, 2.0], np.float32)
    scale = fit_scale(weights[:3])
    impacts = quantize(weights, scale)
    assert scale == 255.0
    assert impacts.tolist() == [
        1,
        128,
        255,
        255,
    ]  # 127.5 rounds to even; 2.0 saturates; 0.255 is lifted to one step
    error = measured_error(weights, impacts, scale)
    assert error["max_absolute"] == pytest.approx(1.0)
    assert error["saturated"] == 0.25
    assert error["raised"] == 0.25
    assert error["relative"] == pytest.approx((0.745 / 255 + 0.5 / 255 + 1.0) / 3.501, rel=1e-3)
