"""Indexes of sentence-transformers objects: scores are the model's similarity, and another model is refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from models import TEXTS, masked_lm, raw, sentence_transformers_6
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from lexmax import EncoderMismatchError, FieldEncoder, RepresentationError, Retriever, build_index
from lexmax.retrieval.integrations.sentence_transformers import encoder_of

DOCUMENTS, QUERIES = TEXTS[:-1], ["the weather in new york", "a cold day"]


def colbert_models():
    path = Path(__file__).parents[2] / "unit" / "encoders" / "colbert_models.py"
    spec = importlib.util.spec_from_file_location("colbert_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sparse(folder):
    return SparseEncoder(str(sentence_transformers_6(folder, activation="log1p_relu")), device="cpu")


def tokens(folder):
    return MultiVectorEncoder(str(colbert_models().sentence_transformers(folder)), device="cpu")


def dense(folder, **card):
    transformer = Transformer(str(raw(folder)), max_seq_length=9)
    prompts = {"query": "what is ", "document": "the "}
    return SentenceTransformer(modules=[transformer, Pooling(32, "mean")], prompts=prompts, device="cpu", **card)


def built(model, path, storage):
    build_index(documents=DOCUMENTS, out=path, encoders={"field": FieldEncoder(encoder_of(model), storage)})
    return Retriever.open(path, encoders={"field": encoder_of(model)})


@pytest.mark.parametrize(
    ("make", "storage", "tolerance"), [(sparse, {}, 0.02), (tokens, {"nbits": 8}, 0.02), (dense, {"keep": "float32"}, 1e-5)]
)
def test_scores_are_the_models_similarity(make, storage, tolerance, tmp_path):
    model = make(tmp_path / "model")
    retriever = built(model, tmp_path / "index", storage)
    expected = np.asarray(model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS)).float())
    for scores, results in zip(expected, retriever.search_batch(QUERIES, len(DOCUMENTS)), strict=True):
        found = {int(each.doc_id): each.score for each in results}
        assert set(found) >= set(np.flatnonzero(scores > 0.05).tolist())
        assert list(found.values()) == pytest.approx([float(scores[number]) for number in found], rel=tolerance, abs=0.05)


def test_terms_have_the_tokenizers_names(tmp_path):
    retriever = built(sparse(tmp_path / "model"), tmp_path / "index", {})
    found = retriever.search("rain in the city", 1, explain=True)[0].explanation
    assert "rain" in str(found)


def test_cut_documents_are_counted(tmp_path):
    report = build_index(
        documents=DOCUMENTS, out=tmp_path / "index", encoders={"field": encoder_of(tokens(tmp_path / "model"))}
    )
    assert report.n_truncated == {"field": 1}


def test_a_changed_model_is_another(tmp_path):
    model = sparse(tmp_path / "model")
    built(model, tmp_path / "index", {}).close()
    before = encoder_of(model).fingerprint
    assert encoder_of(sparse(tmp_path / "again")).fingerprint == before
    with torch.no_grad():
        next(iter(model.parameters()))[0, 0] += 1
    assert encoder_of(model).fingerprint != before
    with pytest.raises(EncoderMismatchError):
        Retriever.open(tmp_path / "index", encoders={"field": encoder_of(model)})
    with pytest.raises(RepresentationError, match="no encoder"):
        Retriever.open(tmp_path / "index").search("weather")


def test_other_models_are_refused(tmp_path):
    with pytest.raises(RepresentationError, match="by euclidean"):
        encoder_of(dense(tmp_path / "model", similarity_fn_name="euclidean"))
    with pytest.raises(TypeError, match="not BertForMaskedLM"):
        encoder_of(masked_lm())
