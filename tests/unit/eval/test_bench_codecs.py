"""`lexmax bench codecs`, small: rows, their order of quality, and MaxSim by hand."""

import json

import numpy as np
import pytest
from token_vectors import clustered, token_vectors

from lexmax import DatasetError
from lexmax.__main__ import main
from lexmax.eval.bench import codecs
from lexmax.eval.bench.codecs import CodecBench, run_codec_bench
from lexmax.eval.bench.token_sets import TokenSet

DIM = 32
BYTES = {
    **{f"lexmax-{nbits}bit": DIM * nbits // 8 + 4 for nbits in (1, 2, 4, 8)},
    **{f"colbertv2-{nbits}bit": DIM * nbits // 8 + 4 for nbits in (1, 2, 4)},
    "pq-16bytes": 18,
    "pq-32bytes": 34,
    "int8": DIM + 2,
}


def write_npz(path, widths, *, queries=(8, 8, 8, 8)):
    rng = np.random.default_rng(1)
    vectors = token_vectors(rng, widths, DIM)
    asked = clustered(rng, sum(queries), DIM).reshape(len(queries), -1, DIM)
    np.savez(path, offsets=vectors.offsets, tokens=vectors.tokens, queries=asked)
    return str(path)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    widths = [0, *np.random.default_rng(1).integers(1, 40, 148), 0]
    return write_npz(tmp_path_factory.mktemp("npz") / "tokens.npz", widths)


@pytest.fixture(scope="module")
def report(npz):
    return run_codec_bench(CodecBench(tokens=npz, n_queries=3))


def test_every_codec_has_a_row_of_its_bytes(report):
    assert {row["codec"]: row["bytes_per_token"] for row in report.rows} == BYTES
    assert report.setup["queries"] == 3
    assert all(row["encode_tokens_per_s"] > 0 for row in report.rows)


@pytest.mark.parametrize("names", [[f"lexmax-{n}bit" for n in (1, 2, 4, 8)], [f"colbertv2-{n}bit" for n in (1, 2, 4)]])
def test_more_bits_err_less(report, names):
    rows = {row["codec"]: row for row in report.rows}
    errors = [rows[name]["score_error"] for name in names]
    assert errors == sorted(errors, reverse=True)
    assert rows[names[0]]["recall@10"] <= rows[names[-1]]["recall@10"]


def test_near_exact_codecs_are_near_exact(report):
    rows = {row["codec"]: row for row in report.rows}
    for name in ("lexmax-8bit", "int8"):
        assert 0 < rows[name]["score_error"] < 0.05
        assert rows[name]["recall@100"] > 0.95


def test_the_report_is_json_and_a_table(npz, capsys):
    assert main(["bench", "codecs", "--tokens", npz, "--queries", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["codec"] for row in found["rows"]] == list(BYTES)
    assert main(["bench", "codecs", "--docs", "30", "--dim", "32", "--queries", "2", "--centroids", "16"]) == 0
    table = capsys.readouterr().out
    assert table.count("| lexmax-2bit | 12 |") == 1
    assert "n_centroids: 16" in table
    assert "recall@100" in table


def test_scores_are_maxsim(monkeypatch):
    rng = np.random.default_rng(2)
    documents, queries = token_vectors(rng, [3, 0, 7, 1], 8), token_vectors(rng, [2, 0, 5], 8)
    tokens = TokenSet(documents.offsets, documents.tokens.astype(np.float16), queries)
    monkeypatch.setattr(codecs, "CHUNK_DOCS", 2)
    scores = codecs._scores(tokens, lambda rows: -rows)
    for query in range(3):
        for document in range(4):
            products = queries.row(query) @ -tokens.rows(document, document + 1).tokens.T
            expected = products.max(axis=1).sum() if products.size else 0.0
            assert scores[query, document] == pytest.approx(expected, abs=1e-5)


def test_centroids_come_out_of_lexmax_as_they_are(npz):
    """All codecs stand around the same centroids: those that lexmax decodes to when nothing is left over."""
    training = clustered(np.random.default_rng(3), 4000, DIM)
    codec = codecs.train(training, 32)
    candidates = {candidate.name: candidate for candidate in codecs._candidates(codec, training, training[:500])}
    codes, *_ = candidates["lexmax-8bit"].encode(training)
    centroids = (codec.mean + codec.centroid_scale * (codec.centroids[codes].astype(np.float32) - 128)) @ codec.rotation.T
    pq_codes, *_ = candidates["pq-16bytes"].encode(training)
    assert np.array_equal(codes, pq_codes)
    assert np.linalg.norm(training - centroids, axis=1).mean() == pytest.approx(codec.residual, rel=0.05)
    colbert_codes, *_ = candidates["colbertv2-4bit"].encode(training)
    unit = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    assert np.mean(colbert_codes == codes) > 0.8
    assert np.sum(training * unit, axis=1).mean() > 0.7


def test_a_few_documents_have_no_deep_recall_and_a_few_tokens_no_product_quantiser(tmp_path):
    report = run_codec_bench(CodecBench(tokens=write_npz(tmp_path / "few.npz", [5, 9, 4])))
    assert {row["recall@10"] for row in report.rows} == {None}
    assert [row["codec"] for row in report.rows] == [name for name in BYTES if not name.startswith("pq")]
    assert "| 12 |  |  |" in report.to_markdown()


@pytest.mark.parametrize("wrong", [{"n_docs": 0}, {"n_queries": 0}, {"dim": 0}, {"n_centroids": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        CodecBench(**wrong)


def test_a_malformed_file_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", tokens=np.zeros((2, 8)))
    with pytest.raises(DatasetError, match=r"x\.npz"):
        run_codec_bench(CodecBench(tokens=str(tmp_path / "x.npz")))


def test_no_queries_are_refused(tmp_path):
    vectors = token_vectors(np.random.default_rng(1), [4, 4], DIM)
    queries = np.empty((0, 8, DIM), np.float32)
    np.savez(tmp_path / "x.npz", offsets=vectors.offsets, tokens=vectors.tokens, queries=queries)
    with pytest.raises(DatasetError, match="no queries"):
        run_codec_bench(CodecBench(tokens=str(tmp_path / "x.npz")))
