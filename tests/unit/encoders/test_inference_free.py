from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder

# The first tokens as in OpenSearch's idf.json, which weighs special tokens 1.
IDF = {
    "[CLS]": 1.0, "[SEP]": 1.0, "[PAD]": 1.0, "the": 0.1353, ".": 0.0161, "?": 3.3313,
    "weather": 4.5684, "ny": 5.7729, "now": 3.5895, "sun": -1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    return models.with_idf(tmp_path_factory.mktemp("models") / "idf", IDF)


@pytest.fixture(scope="module")
def encoder(folder):
    return load_model_encoder(str(folder))


def weights_of(encoder, query: str) -> dict[str, float]:
    terms, weights = encoder.encode_queries([query]).row(0)
    return {encoder.vocabulary[term]: round(float(weight), 4) for term, weight in zip(terms, weights, strict=True)}


def test_queries_are_distinct_tokens_of_the_table(encoder):
    assert encoder.kind == "inference-free"
    assert weights_of(encoder, "the the weather") == {"the": 0.1353, "weather": 4.5684}


def test_special_unknown_unlisted_and_negative_tokens_weigh_nothing(encoder):
    assert weights_of(encoder, "[CLS] zzz [SEP] [PAD] sun snow ny?") == {"ny": 5.7729, "?": 3.3313}
    assert weights_of(encoder, "") == {}


def test_query_options(folder):
    pruned = load_model_encoder(str(folder), query_top_k=1, query_max_length=3)
    assert weights_of(pruned, "the now weather ny") == {"weather": 4.5684}


def test_documents_are_splade(folder, raw, models, dense, encoder):
    splade = load_model_encoder(str(raw))  # the same random weights
    np.testing.assert_allclose(
        dense(encoder.encode_documents(models.TEXTS)), dense(splade.encode_documents(models.TEXTS)), atol=1e-6
    )
    doubled = load_model_encoder(str(folder), activation="log1p_relu").encode_documents(models.TEXTS)
    np.testing.assert_allclose(dense(doubled), np.log1p(dense(encoder.encode_documents(models.TEXTS))), atol=1e-6)


def test_queries_need_no_torch(folder):
    program = (
        "import sys; from lexmax.retrieval.encoders.loader import load_model_encoder; "
        f"e = load_model_encoder({str(folder)!r}); v = e.encode_queries(['weather in ny']); "
        "e.fingerprint, e.vocabulary, e.surface_terms('ny'); assert v.n_postings == 2; "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_settings_and_fingerprint(models, folder, encoder, tmp_path):
    assert encoder.settings == {"model": str(folder)}
    again = load_model_encoder(kind=encoder.kind, **encoder.settings)
    assert again.fingerprint == encoder.fingerprint
    other = models.with_idf(tmp_path / "other", {**IDF, "ny": 5.0})
    assert load_model_encoder(str(other)).fingerprint != encoder.fingerprint
    for options in ({"query_top_k": 9}, {"document_top_k": 9}, {"activation": "log1p_relu"}):
        assert load_model_encoder(str(folder), **options).fingerprint != encoder.fingerprint


def test_surface_terms_and_vocabulary(encoder, models):
    assert encoder.surface_terms("Weather, weather [SEP]") == {"weather", ","}
    assert list(encoder.vocabulary) == models.VOCABULARY


def test_kinds_that_do_not_fit_are_refused(folder, raw):
    with pytest.raises(RepresentationError, match="no table of query weights"):
        load_model_encoder(str(raw), kind="inference-free")
    with pytest.raises(RepresentationError, match="its queries are a table of weights"):
        load_model_encoder(str(folder), kind="splade")
    bag = load_model_encoder(str(folder), kind="splade", queries="bag")
    assert weights_of(bag, "snow snow ny") == {"snow": 1, "ny": 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"foreign": 1.0, "words": 2.0, "sun": 1.0}, "2 of 3 tokens are unknown"),
        (["sun"], "not a table"),
        ({"sun": "much"}, "not a table"),
        ({"sun": float("nan")}, "finite"),
    ],
)
def test_bad_idf_files_are_refused(models, tmp_path, table, message):
    folder = models.with_idf(tmp_path / "bad", table)
    with pytest.raises(RepresentationError, match=message):
        load_model_encoder(str(folder))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": np.ones(30522, np.float32)}, "30522 weights, but the model has"),
        ({"other": np.ones(8, np.float32)}, "not a table"),
    ],
)
def test_bad_static_embeddings_are_refused(models, tmp_path, tensors, message):
    folder = models.router_with_table(tmp_path / "router", torch.ones(len(models.VOCABULARY)))
    save_file(tensors, folder / "query_0_SparseStaticEmbedding" / "model.safetensors")
    with pytest.raises(RepresentationError, match=message):
        load_model_encoder(str(folder))
    (folder / "query_0_SparseStaticEmbedding" / "model.safetensors").unlink()
    with pytest.raises(RepresentationError, match="no token weights"):
        load_model_encoder(str(folder))


def test_a_query_tokenizer_of_another_vocabulary_is_refused(models, tmp_path):
    folder = models.router_with_table(tmp_path / "router", torch.ones(len(models.VOCABULARY)))
    words = [*models.VOCABULARY[:-1], "other"]
    models.tokenizer(words).save_pretrained(folder / "query_0_SparseStaticEmbedding")
    with pytest.raises(RepresentationError, match="different vocabularies"):
        load_model_encoder(str(folder))
