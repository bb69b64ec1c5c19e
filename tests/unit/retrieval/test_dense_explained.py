"""Explanations of dense fields: which sentences of a document are nearest to the query."""

import numpy as np
import pytest
from corpora import write_index
from dense_vectors import new_dense_field

from lexmax.index.representations.dense import DenseVectors
from lexmax.retrieval.searchers.explanation import MAX_SENTENCES
from lexmax.retrieval.searchers.registry import field_searcher
from lexmax.retrieval.sentences import sentences_of


class Letters:
    """An encoder of how often each letter stands in a text."""

    kind, representation, dim = "dense", "dense", 26

    def encode_documents(self, texts):
        return DenseVectors(np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], np.float32))


def test_sentences_come_by_their_similarity_with_their_places(tmp_path):
    text, encoder = "aab. bbb! ccc?\n\n  abc", Letters()
    snapshot = write_index(tmp_path / "idx", {"dense": new_dense_field(26)}, {"dense": encoder.encode_documents([text])})
    searcher = field_searcher(snapshot.field("dense"), encoder)
    explained = searcher.explain(encoder.encode_documents(["ab"]), 0, "ab", 0, text)
    assert explained.score == 3 + 5  # a thrice, b five times
    assert [(text[slice(*each.span)], each.score) for each in explained.sentences] == [
        ("aab.", 3.0), ("bbb!", 3.0), ("abc", 2.0), ("ccc?", 0.0),
    ]  # fmt: skip
    many = " ".join("a." for _ in range(3 * MAX_SENTENCES))
    assert len(searcher.explain(encoder.encode_documents(["ab"]), 0, "ab", 0, many).sentences) == MAX_SENTENCES
    assert field_searcher(snapshot.field("dense")).explain(encoder.encode_documents(["ab"]), 0, "ab", 0, text).sentences == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("One", ["One"]),
        ("A. B", ["A.", "B"]),
        ("3.5 is 7/2", ["3.5 is 7/2"]),
        ("a\n\n\nb!", ["a", "b!"]),
        (" \n ", []),
    ],
)
def test_sentences(text, sentences):
    assert [text[first:last] for first, last in sentences_of(text)] == sentences
