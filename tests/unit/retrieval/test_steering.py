"""Boosted terms in Python and on the command line, against searches with the vectors that they mean."""

import json

import pytest

from lexmax import Retriever
from lexmax.__main__ import main
from lexmax.index.collection import Collection, NewField
from lexmax.index.documents import Document
from lexmax.index.manifest import EncoderRecord
from lexmax.index.representations.sparse import SparseVectors

LATENTS = ["latent-0 wing flow", "latent-1 heat", "latent-2 heat", "latent-3"]
DOCUMENTS = {"a": {0: 2.0}, "b": {1: 1.0, 2: 0.5}, "c": {2: 1.5}, "d": {3: 1.0, 0: 0.5}}


class Latents:
    """An encoder of kind "sae" whose texts are JSON objects of latent -> weight."""

    kind, representation, fingerprint, settings, vocabulary = "sae", "sparse", "sae:0123456789abcdef", {}, LATENTS

    def encode_documents(self, texts):
        rows = ([(int(term), weight) for term, weight in json.loads(text).items()] for text in texts)
        return SparseVectors.from_rows([([t for t, _ in row], [w for _, w in row]) for row in rows])

    encode_queries = encode_documents

    def surface_terms(self, text):
        return set()


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    encoder, path = Latents(), tmp_path_factory.mktemp("index") / "i"
    new = NewField(
        encoder=EncoderRecord(kind="sae", fingerprint=encoder.fingerprint, settings={}), representation="sparse",
        vocabulary=LATENTS,
    )  # fmt: skip
    texts = [json.dumps(row) for row in DOCUMENTS.values()]
    with Collection.create(path, {"sae": new}) as collection:
        documents = [Document(doc_id=name, text=text) for name, text in zip(DOCUMENTS, texts, strict=True)]
        collection.add(documents, {"sae": encoder.encode_documents(texts)})
        collection.commit()
    with Retriever.open(path, encoders={"sae": encoder}) as opened:
        yield opened


def found(results):
    return [(result.doc_id, pytest.approx(result.score, rel=1e-4)) for result in results]


@pytest.mark.parametrize(
    ("query", "boost", "same_as"),
    [
        ({0: 1.0, 3: 0.5}, {"latent-3": 2}, {0: 1.0, 3: 2.0}),
        ({0: 1.0, 3: 0.5}, {"latent-0": 0}, {3: 0.5}),
        ({0: 4.0}, {"latent-2": 0.5}, {0: 4.0, 2: 2.0}),
        ({0: 4.0}, {"wing flow": 2, "latent-1 heat": 1}, {0: 8.0, 1: 4.0}),
        ({}, {"latent-1": 3}, {1: 3.0}),
    ],
)
def test_a_boost_is_a_weight_relative_to_the_heaviest(query, boost, same_as, retriever):
    text = json.dumps(query)
    boosted, meant = retriever.search(text, boost=boost, explain=True), retriever.search(json.dumps(same_as))
    assert found(boosted) == found(meant)
    assert found(retriever.search_vectors(retriever.encode([text]), [text], boost=boost)[0]) == found(meant)
    assert retriever.rank([text], boost=boost)[0] == [(name, score) for name, score in found(meant)]
    for result in boosted:
        (field,) = result.explanation.stages[0].fields
        assert sum(match.score for match in field.terms) == pytest.approx(result.score, rel=1e-4)


def test_terms_of_every_sparse_field_are_boosted():
    texts = ["a red car", "a blue car", "a red house"]
    with Retriever.from_texts(texts, encoders=["bm25", "other=bm25"]) as retriever:
        plain = retriever.search("car", search="0.5*bm25 + 0.5*other")
        steered = retriever.search("car", search="0.5*bm25 + 0.5*other", boost={"red": 3})
        assert {result.text for result in plain} == {"a red car", "a blue car"}
        assert [result.text for result in steered][:2] == ["a red car", "a red house"]


@pytest.mark.parametrize(
    ("boost", "error", "message"),
    [
        ({"latent-9": 1}, ValueError, "boost: no term 'latent-9' in sae; did you mean 'latent-"),
        ({"heat": 1}, ValueError, "boost: 'heat' names several latents: latent-1 heat, latent-2 heat; name one by its number"),
        ({"latent-1": -1}, ValueError, "boost of 'latent-1' is -1: it must be 0 or more"),
        ({"latent-1": float("inf")}, ValueError, "it must be 0 or more"),
        ({"latent-1": "2"}, TypeError, "boost is a mapping of term to number"),
        ({"latent-1": True}, TypeError, "boost is a mapping of term to number"),
        ({1: 2.0}, TypeError, "boost is a mapping of term to number"),
        ("latent-1", TypeError, "boost is a mapping, as in"),
    ],
)
def test_wrong_boosts_are_refused(boost, error, message, retriever):
    with pytest.raises(error) as caught:
        retriever.search("{}", boost=boost)
    assert message in str(caught.value)


def test_the_command_line(retriever, tmp_path, capsys):
    path = str(tmp_path / "i")
    corpus = tmp_path / "c.jsonl"
    corpus.write_text(
        "".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(["red car", "blue car"]))
    )
    assert main(["build", str(corpus), "--out", path, "--encoder", "bm25"]) == 0
    assert main(["search", path, "car", "--boost", "blue=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["doc_id"] == "1"
    queries = tmp_path / "q.txt"
    queries.write_text("car\n")
    assert main(["search", path, "--queries", str(queries), "--boost", "red=2"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["doc_id"] == "0"
    for given, message in (
        (["green=2"], "boost: no term 'green' in bm25"),
        (["blue"], "--boost takes TERM=WEIGHT, as in latent-12=2, not 'blue'"),
        (["=2"], "--boost takes TERM=WEIGHT"),
        (["blue=x"], "--boost takes TERM=WEIGHT"),
        (["blue=1", "--boost", "blue=2"], "--boost gives blue twice"),
        (["blue=-1"], "it must be 0 or more"),
    ):
        assert main(["search", path, "car", "--boost", *given]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
