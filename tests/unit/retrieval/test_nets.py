"""Fields whose queries are networks: what is asked wrongly, explanations, and storage under commits and damage."""

import numpy as np
import pytest
from corpora import documents, write_index
from damage import flip
from dense_vectors import dense_vectors
from net_queries import make_net_field, net_scores, new_net_field, random_nets

from lexmax import Collection, IndexFormatError, RepresentationError
from lexmax.index.check import check_index
from lexmax.index.nets.config import NetFieldConfig
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.representations.nets import QueryNets
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.explanation import MAX_SENTENCES
from lexmax.retrieval.searchers.nets import NetOptions, NetSearcher
from lexmax.retrieval.searchers.registry import field_searcher, make_options

DIM = 26


@pytest.fixture
def vectors():
    return dense_vectors(np.random.default_rng(1), 60)


class Letters:
    """An encoder of how often each letter stands in a text."""

    kind, representation, dim = "hypencoder", "nets", DIM

    def encode_documents(self, texts):
        return DenseVectors(np.array([[text.count(chr(97 + i)) for i in range(DIM)] for text in texts], np.float32))


def test_queries_are_networks_for_vectors_of_the_fields_dim(tmp_path, vectors):
    searcher = field_searcher(make_net_field(tmp_path / "idx", vectors))
    queries = random_nets(np.random.default_rng(2), 3, (24, 5))
    assert searcher.vectors(queries) is queries
    for wrong, found in (
        (random_nets(np.random.default_rng(2), 1, (23, 5)), "not of dim 23"), (vectors, "not DenseVectors"), ("text", "not str")
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"field nets: queries are QueryNets of dim 24, {found}"):
            searcher.vectors(wrong)
    with pytest.raises(ValueError, match="k must be at least 1"):
        searcher.search(queries, 0)
    with pytest.raises(ValueError, match=r"doc_nums must be in 0\.\.59"):
        searcher.score(queries, [np.array([60])] * 3)
    assert len(searcher.search(queries.select(np.array([], np.int64)), 3)) == 0


def test_options(tmp_path, vectors):
    assert make_options("nets") == NetOptions(algorithm="auto")
    with pytest.raises(ValueError, match="algorithm is 'fast': it must be 'auto' or 'exhaustive'"):
        make_options("nets", {"algorithm": "fast"})
    with pytest.raises(ValueError, match="unknown option 'n_probe'"):
        make_options("nets", {"n_probe": 3})
    with pytest.raises(RepresentationError, match="takes a field of vectors that networks score"):
        NetSearcher(write_index(tmp_path / "idx", {"nets": new_net_field(24)}, {"nets": vectors}).field("nets").dense)
    for wrong, message in (({"dim": 0}, "dim is 0"), ({"dim": 3, "keep": "int8"}, "keep is 'int8'")):
        with pytest.raises(ValueError, match=message):
            NetFieldConfig(**wrong)


def test_numbers_that_are_too_large_are_an_error_and_no_score(tmp_path):
    field = make_net_field(tmp_path / "idx", DenseVectors(np.full((3, 4), 1e17, np.float32)), keep="float32")
    queries = QueryNets((4, 2), np.full((1, 12), 1e30, np.float32))
    with pytest.raises(RepresentationError, match="field nets: a score is not finite"):
        field_searcher(field).search(queries, 1)


def test_documents_come_and_go(tmp_path, vectors):
    path, queries = tmp_path / "idx", random_nets(np.random.default_rng(3), 2, (24, 24, 6))
    make_net_field(path, vectors, (20, 21), (3, 20, 59))
    kept = np.array([i for i in range(60) if i not in (3, 20, 59)])
    with Collection.open(path) as collection:
        collection.compact()
        collection.commit()
    snapshot = Snapshot.open(path, verify=True)
    assert len(snapshot.segments) == 1
    assert check_index(path) == []
    field = snapshot.field("nets")
    hits = field_searcher(field).search(queries, 60)
    for number in range(2):
        doc_nums, scores = hits.query(number)
        expected = net_scores(queries, number, vectors.vectors.astype(np.float16)[kept])
        assert {f"d{i}" for i in kept} == set(snapshot.doc_ids(doc_nums.tolist()))
        np.testing.assert_allclose(scores, expected[doc_nums], atol=1e-4)
        np.testing.assert_allclose(field.document_vector(5), vectors.row(6), rtol=2**-10, atol=1e-6)
    facts = snapshot.info()["fields"]["nets"]
    assert (facts["representation"], facts["dim"], facts["keep"], facts["n_neighbours"]) == ("nets", 24, "float16", 0)
    with Collection.open(path) as collection:
        with pytest.raises(RepresentationError, match="vectors of dim 24, not 23"):
            collection.add(documents(1, 100), {"nets": DenseVectors(np.ones((1, 23), np.float32))})
        collection.add(documents(1, 100), {"nets": vectors.select(np.array([0]))})
        collection.commit()
    later = Snapshot.open(path, previous=snapshot)
    assert later.field("nets").segments[0].part is field.segments[0].part
    assert later.n_docs == 58


def test_damage_is_found_when_it_is_read(tmp_path, vectors):
    make_net_field(tmp_path / "idx", vectors)
    (file,) = (tmp_path / "idx").glob("field-nets-*/dense.lex")
    flip(file, 200, 3)
    queries = random_nets(np.random.default_rng(2), 1, (24, 5))
    with pytest.raises(IndexFormatError, match="CRC-32"):
        field_searcher(Snapshot.open(tmp_path / "idx").field("nets")).search(queries, 3)
    assert check_index(tmp_path / "idx")


def test_sentences_come_by_their_scores_with_their_places(tmp_path):
    text, encoder = "aab. bbb! ccc?\n\n  abc", Letters()
    queries = random_nets(np.random.default_rng(4), 2, (DIM, 9))
    field = make_net_field(tmp_path / "idx", encoder.encode_documents([text]))
    explained = field_searcher(field, encoder).explain(queries, 1, "ab", 0, text)
    expected = net_scores(queries, 1, encoder.encode_documents([text, "aab.", "bbb!", "ccc?", "abc"]).vectors).tolist()
    assert explained.score == explained.contribution == pytest.approx(expected[0], rel=1e-4)
    found = {text[slice(*each.span)]: each.score for each in explained.sentences}
    assert found == pytest.approx(dict(zip(["aab.", "bbb!", "ccc?", "abc"], expected[1:], strict=True)), rel=1e-4)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    many = " ".join("a." for _ in range(3 * MAX_SENTENCES))
    assert len(field_searcher(field, encoder).explain(queries, 0, "ab", 0, many).sentences) == MAX_SENTENCES
    assert field_searcher(field).explain(queries, 0, "ab", 0, text).sentences == []
