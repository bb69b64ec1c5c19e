"""A field of encodings beside its token field: one encoding of texts, one syntax, one answer in every interface."""

import asyncio

import numpy as np
import pytest
from hashed_tokens import HashedTokens

from lexmax import Retriever, build_index
from lexmax.index.check import check_index
from lexmax.index.manifest import read
from lexmax.retrieval.encoders.specs import load_spec, parse_encoder_spec
from lexmax.retrieval.fields import add_field, drop_field, field_encoders
from lexmax.retrieval.searchers.fde import MEASURE

WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay", "koi", "lynx", "mole", "newt", "owl", "pig"]
TEXTS = [" ".join(np.random.default_rng(i).choice(WORDS, 6)) for i in range(60)]
FDE = "muvera,of=tokens,n_cells=4,n_samples=200"


class Counting(HashedTokens):
    """Counts the texts that it encodes."""

    def __init__(self):
        self.n_encoded = 0

    def encode_documents(self, texts):
        self.n_encoded += len(texts)
        return super().encode_documents(texts)

    encode_queries = encode_documents

    def document_spans(self, text):
        return None

    def query_spans(self, text):
        return [(word, 0, 0) for word in text.split()]


def built(path, encoder, **fields):
    build_index(documents=TEXTS, out=path, encoders={"tokens": encoder, "fde": FDE, **fields})
    return path


def test_texts_are_encoded_once(tmp_path):
    encoder = Counting()
    path = built(tmp_path / "i", encoder)
    assert encoder.n_encoded == len(TEXTS)
    assert read(path).search == "tokens"
    with Retriever.open(path, encoders={"tokens": encoder}) as retriever:
        found = retriever.search(TEXTS[7], 3, search="fde:10 > tokens", explain=True)
        assert encoder.n_encoded == len(TEXTS) + 1
        assert found[0].text == TEXTS[7]
        first, reranked = found[0].explanation.stages
        assert [stage.stage for stage in (first, reranked)] == ["fde:10", "> tokens"]
        assert first.fields[0].measure == MEASURE
        assert reranked.fields[0].measure == ""
        assert first.fields[0].score == first.score != reranked.score
        assert retriever.search(TEXTS[7], 1, search="fde")[0].text == TEXTS[7]
        assert asyncio.run(retriever.asearch(TEXTS[7], 1, search="fde"))[0].text == TEXTS[7]
        assert retriever.add([{"id": "new", "text": "yak ant bee"}]) == 1
        assert encoder.n_encoded == len(TEXTS) + 4
        assert retriever.search("yak ant bee", 1, search="fde")[0].doc_id == "new"
        retriever.delete(["new"])
        assert retriever.search("yak ant bee", 1, search="fde")[0].doc_id != "new"
    assert check_index(path) == []


def test_it_finds_what_maxsim_finds(tmp_path):
    encoder = Counting()
    with Retriever.open(built(tmp_path / "i", encoder), encoders={"tokens": encoder}) as retriever:
        best, found = (retriever.rank(TEXTS[:20], k, search=search) for k, search in ((3, "tokens"), (15, "fde")))
        kept = [{doc for doc, _ in one} <= {doc for doc, _ in other} for one, other in zip(best, found, strict=True)]
        assert np.mean(kept) > 0.9


def test_a_field_is_added_from_stored_tokens(tmp_path):
    encoder = Counting()
    build_index(documents=TEXTS, out=tmp_path / "i", encoders={"tokens": encoder})
    assert add_field(tmp_path / "i", f"fde={FDE}", search="fde:20 > tokens") == len(TEXTS)
    assert encoder.n_encoded == len(TEXTS)
    assert add_field(tmp_path / "i", f"fde={FDE}") == 0  # it is there
    with pytest.raises(ValueError, match="there is a field 'fde' already"):
        add_field(tmp_path / "i", "fde=muvera,of=tokens,cells=simhash")
    add_field(tmp_path / "i", "paper=muvera,of=tokens,cells=simhash,keep=float32")
    with Retriever.open(tmp_path / "i", encoders={"tokens": encoder}) as retriever:
        for search in (None, "paper:30 > tokens"):
            assert retriever.search(TEXTS[3], 1, search=search)[0].text == TEXTS[3]
    drop_field(tmp_path / "i", "tokens", search="fde")
    with Retriever.open(tmp_path / "i", encoders={"fde": encoder}) as retriever:
        assert retriever.search(TEXTS[3], 1)[0].text == TEXTS[3]
    assert check_index(tmp_path / "i") == []


def test_specs():
    spec = parse_encoder_spec("fde=muvera,of=colbert,n_cells=40,quantise=opq,pq_bytes=64")
    assert (spec.name, spec.kind, spec.model) == ("fde", "muvera", None)
    assert spec.settings == {"of": "colbert", "n_cells": 40}
    assert spec.storage == {"quantise": "opq", "pq_bytes": 64}
    assert parse_encoder_spec("muvera,of=colbert,inner_dim=null,cells=simhash").name == "muvera"
    with pytest.raises(ValueError, match="encodes the vectors of a field of the same index"):
        load_spec(spec)


@pytest.mark.parametrize(("text", "error", "message"), [
    ("muvera", ValueError, "name it, as in muvera,of=colbert"),
    ("muvera,of=tokens,n_cels=3", TypeError, "did you mean 'n_cells'"),
    ("muvera,of=tokens,n_cells=many", ValueError, "n_cells takes a whole number"),
    ("muvera,of=other", ValueError, "encodings of 'other', and the token fields to be are tokens, bm25"),
    ("muvera,of=x", ValueError, "encodings of 'x'"),
    ("muvera,of=bm25", ValueError, "muvera encodes token vectors, and the field bm25 holds sparse vectors"),
    ("muvera,of=tokens,nbits=2", ValueError, "nbits is for tokens vectors"),
    ("muvera,of=tokens,cells=simhash,n_cells=3", ValueError, "n_cells has no use with cells=simhash"),
    ("muvera,of=tokens,quantise=pq,pq_bytes=0", ValueError, "pq_bytes is 0"),
])  # fmt: skip
def test_settings_that_do_not_fit(tmp_path, text, error, message):
    def made():
        return [each.new_field() for each in field_encoders({"tokens": HashedTokens(), "bm25": "bm25", "x": text}).values()]

    with pytest.raises(error, match=message):
        made()


def test_sources_that_are_not_there(tmp_path):
    build_index(documents=TEXTS, out=tmp_path / "i", encoders=["bm25"])
    with pytest.raises(ValueError, match="encodings of 'bm25', and the token fields are none"):
        add_field(tmp_path / "i", "fde=muvera,of=bm25")
    assert "fde" not in read(tmp_path / "i").fields
