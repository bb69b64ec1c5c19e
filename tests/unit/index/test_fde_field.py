"""A field of encodings in a collection: trained once, again when outgrown, filled from stored tokens."""

import numpy as np
import pytest
from corpora import documents
from damage import flip
from token_vectors import TOKEN_ENCODER, token_vectors

from lexmax.index.check import check_index
from lexmax.index.collection import BufferLimits, Collection, NewField
from lexmax.index.errors import RepresentationError
from lexmax.index.fde.config import FdeConfig
from lexmax.index.manifest import read
from lexmax.index.multivector.config import MultiVectorConfig
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.registry import field_searcher

DIM = 16
TOKENS = NewField(encoder=TOKEN_ENCODER, representation="tokens", options={**vars(MultiVectorConfig(dim=DIM))})


def encodings(*, keep="float16", kept=None, **settings):
    config = FdeConfig(of="tokens", token_dim=DIM, **{"n_cells": 4, **settings})
    options = {"encoding": config.options(), "vectors": {"dim": config.dim, "keep": keep, **(kept or {})}}
    return NewField(encoder=TOKEN_ENCODER, representation="fde", options=options)


def vectors_of(n_docs, seed=0):
    rng = np.random.default_rng(seed)
    return token_vectors(rng, rng.integers(1, 12, n_docs), DIM)


def add(collection, vectors, first, last):
    collection.add(documents(last - first, first), {"tokens": vectors.select(np.arange(first, last))})
    collection.commit()


def kept(path, name="fde"):
    """Kept encodings of all documents."""
    field = Snapshot.open(path).field(name)
    return field, np.concatenate([each.part.vectors(np.arange(each.n_docs)) for each in field.segments])


def decoded(path):
    """Stored token vectors of all documents."""
    field = Snapshot.open(path).field("tokens")
    return token_batch([field.document_tokens(i) for i in range(field.n_total)])


def token_batch(matrices):
    from lexmax import MultiVectors

    return MultiVectors.of(matrices, DIM)


def test_documents_are_encoded_as_they_come(tmp_path):
    vectors = vectors_of(30)
    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "fde": encodings()}) as collection:
        add(collection, vectors, 0, 20)
        add(collection, vectors, 20, 30)
    field, rows = kept(tmp_path / "i")
    assert field.encoding.n_docs == 20
    assert np.allclose(rows, field.encoding.encode_documents(vectors), atol=2e-2)
    assert field.info()["encoding"] == {"of": "tokens", "token_dim": DIM, "cells": "learnt", "n_cells": 4}
    assert field.info()["trained_on_documents"] == 20
    assert field.n_bytes > field.dense.n_bytes
    assert check_index(tmp_path / "i") == []


def test_an_outgrown_encoding_is_trained_again_from_stored_tokens(tmp_path):
    vectors = vectors_of(40)
    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "fde": encodings(keep="float32")}) as collection:
        add(collection, vectors, 0, 5)
        before = collection.manifest.fields["fde"].state["cells"]
        add(collection, vectors, 5, 40)  # a commit sees eight times as many
        after = collection.manifest.fields["fde"].state["cells"]
    assert before != after
    assert not (tmp_path / "i" / before).exists()
    field, rows = kept(tmp_path / "i")
    assert field.encoding.n_docs == 40
    assert np.allclose(rows, field.encoding.encode_documents(decoded(tmp_path / "i")), atol=2e-2)
    assert check_index(tmp_path / "i") == []


def test_compaction_trains_again_without_deleted_documents(tmp_path):
    vectors = vectors_of(60)
    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "fde": encodings(keep="float32")}) as collection:
        add(collection, vectors, 0, 60)
        collection.delete([f"d{i}" for i in range(0, 60, 2)])
        collection._store.writers["fde"]._encoding = field_of_few(collection)
        collection.compact()
        collection.commit()
    field, rows = kept(tmp_path / "i")
    assert (field.encoding.n_docs, len(rows)) == (30, 30)
    assert np.allclose(rows, field.encoding.encode_documents(decoded(tmp_path / "i")), atol=2e-2)


def field_of_few(collection):
    """Return the writer's encoding as if it had been made of 7 documents."""
    from dataclasses import replace

    return replace(collection._store.writers["fde"]._encoding, n_docs=7)


def test_an_encoding_outlives_its_token_field(tmp_path):
    vectors = vectors_of(50)
    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "fde": encodings()}) as collection:
        add(collection, vectors, 0, 5)
        cells = collection.manifest.fields["fde"].state["cells"]
        collection.drop_field("tokens")
        collection.commit()
        collection.add(documents(45, 5), {"fde": vectors.select(np.arange(5, 50))})
        collection.compact()
        collection.commit()
        assert collection.manifest.fields["fde"].state["cells"] == cells
    field, rows = kept(tmp_path / "i")
    assert np.allclose(rows, field.encoding.encode_documents(vectors), atol=2e-2)


def test_a_field_is_filled_from_stored_tokens_and_resumes(tmp_path):
    vectors = vectors_of(600)
    with Collection.create(tmp_path / "i", {"tokens": TOKENS}) as collection:
        add(collection, vectors, 0, 400)
        add(collection, vectors, 400, 600)
        collection.delete(["d3"])
        collection.add_field("fde", encodings(keep="float32"))
        collection.commit()

        def stop(n_filled):
            if n_filled >= 512:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            collection.fill("fde", progress=stop, commit_every_s=0)
    assert not read(tmp_path / "i").fields["fde"].complete
    assert check_index(tmp_path / "i") == []
    with Collection.open(tmp_path / "i") as collection:
        assert 0 < collection.fill("fde") < 600
    field, rows = kept(tmp_path / "i")
    assert np.allclose(rows, field.encoding.encode_documents(decoded(tmp_path / "i")), atol=2e-2)
    assert check_index(tmp_path / "i") == []


def test_a_field_without_its_token_field_cannot_be_filled(tmp_path):
    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "other": TOKENS}) as collection:
        collection.add(documents(5), {name: vectors_of(5) for name in ("tokens", "other")})
        collection.add_field("fde", encodings())
        collection.drop_field("tokens")
        collection.commit()
        with pytest.raises(RepresentationError, match="the token field that fde is made of is gone: drop it"):
            collection.fill("fde")


def test_codes_of_encodings_are_trained_again_with_them(tmp_path):
    vectors = vectors_of(1100)
    new = encodings(kept={"quantise": "pq", "pq_bytes": 8})
    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "fde": new}, limits=BufferLimits(n_tokens=1 << 20)) as collection:
        add(collection, vectors, 0, 200)
        add(collection, vectors, 200, 1100)
    field, _ = kept(tmp_path / "i")
    assert field.encoding.n_docs == 1100
    assert [each.part.structure for each in field.segments] == ["codes"]
    searcher = field_searcher(field)
    asked = searcher.vectors(vectors.select(np.arange(20)))
    best = searcher.search(asked, 1, options=searcher.options_type(algorithm="exhaustive"))
    found = searcher.search(asked, 1)
    assert np.mean(found.doc_nums == best.doc_nums) > 0.8
    assert check_index(tmp_path / "i") == []


def test_an_emptied_field_forgets_its_encoding(tmp_path):
    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "fde": encodings()}) as collection:
        add(collection, vectors_of(5), 0, 5)
        collection.delete([f"d{i}" for i in range(5)])
        collection.compact()
        collection.commit()
        assert collection.manifest.fields["fde"].state["cells"] is None
        searcher = field_searcher(Snapshot.open(tmp_path / "i").field("fde"))
        assert not len(searcher.search(searcher.vectors(vectors_of(1)), 3).doc_nums)
        add(collection, vectors_of(6, 1), 0, 6)
    assert kept(tmp_path / "i")[0].encoding.n_docs == 6


def test_damaged_cells_are_found(tmp_path):
    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "fde": encodings()}) as collection:
        add(collection, vectors_of(5), 0, 5)
        cells = collection.manifest.fields["fde"].state["cells"]
    flip(tmp_path / "i" / cells, 300, 1)
    assert any(cells in problem for problem in check_index(tmp_path / "i"))


def test_vectors_of_another_kind_are_refused(tmp_path):
    from lexmax.index.representations import DenseVectors

    with Collection.create(tmp_path / "i", {"tokens": TOKENS, "fde": encodings()}) as collection:
        for wrong, message in (
            (DenseVectors(np.ones((2, DIM), np.float32)), "encodes token vectors, not DenseVectors"),
            (token_vectors(np.random.default_rng(0), [2, 2], 32), f"token vectors of dim {DIM}, not 32"),
        ):
            with pytest.raises(RepresentationError, match=message):
                collection.add(documents(2), {"tokens": vectors_of(2), "fde": wrong})
    searcher = field_searcher(Snapshot.open(make(tmp_path / "j")).field("fde"))
    with pytest.raises(RepresentationError, match="queries of dim 32"):
        searcher.vectors(token_vectors(np.random.default_rng(0), [2], 32))
    with pytest.raises(TypeError, match="matrices"):
        searcher.vectors([np.ones((2, 32), np.float32)])
    with pytest.raises(TypeError, match="token vectors"):
        searcher.vectors("text")


def make(path):
    with Collection.create(path, {"tokens": TOKENS, "fde": encodings()}) as collection:
        add(collection, vectors_of(5), 0, 5)
    return path
