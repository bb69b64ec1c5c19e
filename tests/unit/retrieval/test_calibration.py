"""Calibration: recall against MaxSim in floats, records that know what they were measured on, options chosen from them."""

import warnings
from dataclasses import asdict

import numpy as np
import pytest
from corpora import documents, make_field, random_vectors, write_index
from token_vectors import make_token_field, token_vectors, unit

from lexmax import Calibration, CalibrationWarning, Collection, EncoderMismatchError, NewField, RepresentationError, calibrate
from lexmax.index.manifest import EncoderRecord
from lexmax.index.multivector.config import MultiVectorConfig
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.calibration import LADDER
from lexmax.retrieval.searchers.calibration_record import Effort
from lexmax.retrieval.searchers.centroid import CentroidOptions, CentroidSearcher
from lexmax.retrieval.searchers.registry import field_searcher

DIM, N_DOCS, K = 32, 60, 5
RECORD = EncoderRecord(kind="colbert", fingerprint="colbert:0123456789abcdef", settings={})


class KnownTexts:
    """An encoder that knows the vectors of some documents; queries are random directions, by their words."""

    kind, representation, fingerprint, settings, dim = "colbert", "tokens", RECORD.fingerprint, {}, DIM

    def __init__(self, vectors):
        self._rows = {each.content: vectors.row(i) for i, each in enumerate(documents(len(vectors)))}
        self.encoded, self.asked = set(), []

    def encode_documents(self, texts):
        self.encoded |= set(texts)
        return MultiVectors.of([self._rows[text] for text in texts], DIM)

    def encode_queries(self, texts):
        self.asked += texts
        seeds = [sum(map(ord, text)) for text in texts]
        return MultiVectors.of([token_vectors(np.random.default_rng(seed), [8], DIM).row(0) for seed in seeds], DIM)


def build(path, vectors, *, record=RECORD, cuts=(), **config):
    options = asdict(MultiVectorConfig(dim=DIM, **config))
    new = NewField(encoder=record, representation="tokens", options=options)
    return write_index(path, {"tokens": new}, {"tokens": vectors}, cuts).field("tokens")


@pytest.fixture(scope="module")
def vectors():
    """Close to one another, so that codes of one bit confuse them."""
    return token_vectors(np.random.default_rng(4), [10] * N_DOCS, DIM, n_topics=2, spread=0.5)


@pytest.fixture(scope="module")
def queries():
    return token_vectors(np.random.default_rng(5), [8] * 30, DIM, n_topics=2, spread=0.5)


def float_truth(vectors, queries, k):
    """doc_nums of the k highest MaxSims over the float vectors."""
    found = []
    for i in range(len(queries)):
        products = queries.row(i) @ vectors.tokens.T
        scores = np.maximum.reduceat(products, vectors.offsets[:-1], axis=1).sum(axis=0)
        found.append(np.argsort(-scores, kind="stable")[:k])
    return found


def recall(hits, truth):
    return np.mean([len(set(hits.query(i)[0].tolist()) & set(each.tolist())) / len(each) for i, each in enumerate(truth)])


def test_recall_without_exact_tokens_is_against_the_encoders_floats(tmp_path, vectors, queries):
    field = build(tmp_path / "i", vectors, nbits=1, exact=False)
    encoder = KnownTexts(vectors)
    record = calibrate(tmp_path / "i", queries=queries, k=K, encoder=encoder)
    assert (record.oracle, record.queries, record.n_queries, record.k) == (RECORD.fingerprint, "given", len(queries), K)
    truth = float_truth(vectors, queries, K)
    for options, effort in zip(LADDER, record.efforts, strict=True):
        found = CentroidSearcher(field).search(queries, K, options=options)  # exactly k: one more would find more
        assert effort.recall == pytest.approx(recall(found, truth), abs=1e-4)
    own = CentroidSearcher(field).search(queries, K, options=CentroidOptions(n_probe=64))
    hits = field_searcher(field).search(queries, K, options=CentroidOptions(algorithm="exhaustive"))
    assert recall(own, [hits.query(i)[0] for i in range(len(queries))]) > record.best.recall + 0.1
    assert encoder.encoded


def test_recall_with_exact_tokens_needs_no_encoder(tmp_path, vectors, queries):
    field = build(tmp_path / "i", vectors, nbits=1)
    record = calibrate(tmp_path / "i", "tokens", queries, k=K)
    assert record.oracle == "exact tokens"
    found = CentroidSearcher(field).search(queries, K, options=LADDER[-1])
    assert record.efforts[-1].recall == pytest.approx(recall(found, float_truth(vectors, queries, K)), abs=0.05)


def test_a_field_without_exact_tokens_and_encoder_has_no_truth(tmp_path, vectors, queries):
    ready = EncoderRecord(kind="vectors", fingerprint="vectors:0123456789abcdef", settings={"name": "v", "dim": DIM})
    build(tmp_path / "i", vectors, record=ready, exact=False)
    with pytest.raises(RepresentationError, match=r"no exact tokens and has no encoder.*exact=true"):
        calibrate(tmp_path / "i", queries=queries)
    build(tmp_path / "exact", vectors, record=ready)
    assert calibrate(tmp_path / "exact").queries == "tokens"
    with pytest.raises(RepresentationError, match="give queries as vectors"):
        calibrate(tmp_path / "exact", queries=["a text"])


def test_queries_may_be_texts_or_are_passages_of_documents(tmp_path, vectors):
    build(tmp_path / "i", vectors)
    encoder = KnownTexts(vectors)
    assert calibrate(tmp_path / "i", queries=["sun", "moon"], encoder=encoder).queries == "given"
    assert encoder.asked == ["sun", "moon"]
    record = calibrate(tmp_path / "i", encoder=encoder)
    assert (record.queries, record.n_queries) == ("passages", N_DOCS)
    assert set(encoder.asked[2:]) == {each.content for each in documents(N_DOCS)}  # they are shorter than a passage
    other = KnownTexts(vectors)
    other.fingerprint = "colbert:another"
    with pytest.raises(EncoderMismatchError):
        calibrate(tmp_path / "i", encoder=other)


def test_a_document_does_not_count_for_the_passage_that_it_gave(tmp_path):
    """A query is its document's own tokens: only the k others can be missed."""
    vectors = token_vectors(np.random.default_rng(4), [10] * N_DOCS, DIM)

    class Own(KnownTexts):
        def encode_queries(self, texts):
            return self.encode_documents(texts)

    build(tmp_path / "i", vectors)
    record = calibrate(tmp_path / "i", k=N_DOCS - 1, encoder=Own(vectors))
    assert record.efforts[-1].recall == 1.0


def test_a_target_that_no_settings_reach_is_refused_with_what_helps(tmp_path, vectors, queries):
    build(tmp_path / "i", vectors, nbits=1, exact=False)
    best = calibrate(tmp_path / "i", queries=queries, k=K, encoder=KnownTexts(vectors)).best
    field = Snapshot.open(tmp_path / "i").field("tokens")
    message = rf"recall@5 of 0.99: the best measured is {best.recall:.3f}.*codes of 1 bits.*exact=true.*lexmax field add"
    with pytest.raises(ValueError, match=message):
        CentroidSearcher(field).search(queries, K, options=CentroidOptions(target_recall=0.99))


def record_of(*recalls, error=0.0, k=10):
    efforts = tuple(Effort(options=LADDER[i].numbers, recall=each, error=error, cpu_ms=i) for i, each in enumerate(recalls))
    return Calibration(
        k=k, generation=1, codec="c", n_docs=1, n_tokens=1, n_queries=1, queries="given", oracle="exact tokens", efforts=efforts
    )


def test_the_cheapest_settings_that_reach_the_target_by_a_margin_are_chosen():
    assert record_of(0.8, 0.96, 0.98, 0.99).choose(0.95).recall == 0.98  # half of the misses that the target allows
    assert record_of(0.8, 0.96, 0.98, 0.99, error=0.01).choose(0.95).recall == 0.99
    assert record_of(0.8, 0.955, 0.96).choose(0.95).recall == 0.96  # no margin: the best there is
    assert record_of(0.8, 0.95, 0.955, error=0.01).choose(0.95) is None
    assert record_of(0.9, 1.0).choose(1.0).recall == 1.0


@pytest.fixture
def calibrated(tmp_path, vectors, queries):
    build(tmp_path / "i", vectors, cuts=(30,))
    calibrate(tmp_path / "i", queries=queries, k=K)
    return tmp_path / "i"


def search(path, queries, k=K, target=0.5):
    searcher = CentroidSearcher(Snapshot.open(path).field("tokens"))
    return searcher.search(queries, k, options=CentroidOptions(target_recall=target))


def test_a_fresh_record_is_used_for_as_many_answers_as_it_covers(calibrated, queries):
    field = Snapshot.open(calibrated).field("tokens")
    record = Calibration.of(field)
    assert (record.generation, record.codec, record.n_docs, record.n_tokens) == (2, field.codec_name, N_DOCS, 10 * N_DOCS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hits = search(calibrated, queries)
    expected = CentroidSearcher(field).search(queries, K, options=CentroidOptions(**record.choose(0.5).options))
    assert np.array_equal(hits.scores, expected.scores)
    with pytest.raises(ValueError, match=r"up to 5 answers, not 6: run `lexmax calibrate .*--field tokens -k 6`"):
        search(calibrated, queries, k=K + 1)


def test_a_few_documents_since_are_warned_about(calibrated, queries):
    with Collection.open(calibrated) as collection:
        collection.delete(["d3"])
        collection.commit()
    with pytest.warns(CalibrationWarning, match=r"commit 2; since then documents went from 60 to 59 .*run `lexmax calibrate"):
        search(calibrated, queries)
    assert "from 60 to 59" in Snapshot.open(calibrated).info()["fields"]["tokens"]["calibration"]["stale"]


def test_replaced_documents_are_noticed_by_their_tokens(calibrated, queries):
    with Collection.open(calibrated) as collection:
        collection.add(documents(1), {"tokens": token_vectors(np.random.default_rng(6), [11], DIM)}, replace=True)
        collection.commit()
    with pytest.warns(CalibrationWarning, match="tokens went from 600 to 601"):
        search(calibrated, queries)


def test_growth_is_refused(calibrated, queries):
    with Collection.open(calibrated) as collection:
        collection.add(documents(20, N_DOCS), {"tokens": token_vectors(np.random.default_rng(6), [10] * 20, DIM)})
        collection.commit()
    with pytest.raises(ValueError, match=r"documents went from 60 to 80 .*run `lexmax calibrate .* again"):
        search(calibrated, queries)


def test_new_centroids_are_refused_and_a_mere_merge_is_not(calibrated, queries):
    with Collection.open(calibrated) as collection:
        collection.compact()
        collection.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(calibrated, queries)
    with Collection.open(calibrated) as collection:
        writer = collection._store.writers["tokens"]
        writer._codec_name, writer._unsaved = None, True  # as after clustering again
        collection.commit()
    with pytest.raises(ValueError, match=r"its centroids were trained again: run `lexmax calibrate .* again"):
        search(calibrated, queries)


def test_a_field_that_was_not_calibrated_is_refused(tmp_path, queries):
    build(tmp_path / "i", token_vectors(np.random.default_rng(4), [12] * 20, DIM))
    with pytest.raises(ValueError, match="not calibrated: run `lexmax calibrate"):
        search(tmp_path / "i", queries)


def test_what_cannot_be_calibrated_is_refused(tmp_path, queries):
    make_field(tmp_path / "sparse", random_vectors(np.random.default_rng(9), 3, 30, 8))
    with pytest.raises(RepresentationError, match="no fields hold token vectors"):
        calibrate(tmp_path / "sparse")
    with pytest.raises(RepresentationError, match="field of token vectors, and this one holds sparse"):
        calibrate(tmp_path / "sparse", "sparse")
    make_token_field(tmp_path / "empty", MultiVectors.of([], DIM))
    with pytest.raises(RepresentationError, match="no documents"):
        calibrate(tmp_path / "empty")
    make_token_field(tmp_path / "some", token_vectors(np.random.default_rng(4), [3], DIM))
    with pytest.raises(ValueError, match="k must be"):
        calibrate(tmp_path / "some", queries=queries, k=0)
    with pytest.raises(ValueError, match="queries with tokens"):
        calibrate(tmp_path / "some", queries=MultiVectors.of([np.empty((0, DIM), np.float32)], DIM))
    with pytest.raises(TypeError, match="not one string"):
        calibrate(tmp_path / "some", queries="sun", encoder=KnownTexts(token_vectors(np.random.default_rng(4), [3], DIM)))


def test_progress_counts_settings(tmp_path, queries):
    make_token_field(tmp_path / "i", MultiVectors.of([unit(np.random.default_rng(1).standard_normal((4, DIM)))], DIM))
    tried = []
    calibrate(tmp_path / "i", queries=queries, progress=tried.append)
    assert tried == list(range(1, len(LADDER) + 1))
