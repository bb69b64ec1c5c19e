"""SLIM's encoder against a direct computation with transformers."""

import json

import numpy as np
import pytest
import torch

from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.encoders.networks import masked_lm as backbone
from lexmax.retrieval.encoders.registry import load_encoder


@pytest.fixture(scope="module")
def encoder(raw):
    return load_encoder("slim", model=str(raw), document_top_k=7, query_top_k=4)


def direct(models, raw, text, top_k):
    """log1p(relu(logits)) of all positions but the first, (positions, n_terms), all but the ``top_k`` largest 0."""
    from transformers import BertForMaskedLM

    network = BertForMaskedLM.from_pretrained(raw).eval()
    inputs = models.tokenizer()(text, return_tensors="pt")
    with torch.inference_mode():
        rows = network(**inputs).logits[0, 1:].relu().log1p().numpy()
    rows[rows < np.sort(rows, axis=1)[:, [-top_k]]] = 0
    return rows


def dense(vectors, number, n_terms):
    tokens = vectors.row(number)
    rows = np.zeros((len(tokens), n_terms), np.float32)
    for i, row in enumerate(rows):
        terms, weights = tokens.row(i)
        row[terms] = weights
    return rows


@pytest.mark.parametrize("n_logits", [1, 1 << 21])
def test_tokens_are_those_of_transformers(encoder, raw, models, monkeypatch, n_logits):
    monkeypatch.setitem(backbone.LOGITS_PER_BLOCK, "cpu", n_logits)
    monkeypatch.setattr(backbone, "MIN_TERMS_PER_BLOCK", 5)  # 1 logit: blocks of 5 terms, fewer than top_k
    n_terms = len(models.VOCABULARY)
    for vectors, top_k in ((encoder.encode_documents(models.TEXTS), 7), (encoder.encode_queries(models.TEXTS), 4)):
        assert len(vectors) == len(models.TEXTS)
        for number, text in enumerate(models.TEXTS):
            np.testing.assert_allclose(dense(vectors, number, n_terms), direct(models, raw, text, top_k), atol=1e-5)
        assert np.diff(vectors.rows.indptr).max() <= top_k
        assert (vectors.rows.weights > 0).all()


def test_batches_do_not_change_tokens(encoder, raw, models):
    pairs = load_model_encoder(str(raw), kind="slim", document_top_k=7, batch_size=2)
    found, expected = pairs.encode_documents(models.TEXTS), encoder.encode_documents(models.TEXTS)
    assert np.array_equal(found.offsets, expected.offsets)
    assert np.array_equal(found.rows.terms, expected.rows.terms)
    np.testing.assert_allclose(found.rows.weights, expected.rows.weights, atol=1e-5)
    assert len(encoder.encode_documents([])) == 0


def test_top_k_past_the_vocabulary_keeps_every_positive_weight(raw, models):
    whole = load_encoder("slim", model=str(raw), document_top_k=1000).encode_documents(models.TEXTS[:2])
    for number in range(2):
        expected = direct(models, raw, models.TEXTS[number], len(models.VOCABULARY))
        np.testing.assert_allclose(dense(whole, number, len(models.VOCABULARY)), expected, atol=1e-5)


def test_lengths_cut_each_side(raw, models):
    cut = load_encoder("slim", model=str(raw), document_max_length=5, query_max_length=4)
    text = "sun snow wind ice hill"
    assert cut.encode_documents([text]).n_tokens == 4  # [CLS] is dropped, [SEP] is not
    assert cut.encode_queries([text]).n_tokens == 3
    np.testing.assert_array_equal(cut.encode_queries([text]).rows.weights, cut.encode_queries(["sun snow"]).rows.weights)


def test_settings_make_the_same_encoder_again(encoder, raw):
    assert encoder.settings == {"model": str(raw), "document_top_k": 7, "query_top_k": 4}
    again = load_encoder(encoder.kind, **json.loads(json.dumps(encoder.settings)))
    assert again.fingerprint == encoder.fingerprint
    assert again.fingerprint.startswith("slim:")
    for other in ({"document_top_k": 8}, {"query_max_length": 9}, {"dtype": "bfloat16"}):
        assert load_encoder("slim", model=str(raw), **other).fingerprint != encoder.fingerprint


def test_kind_and_vocabulary(encoder, raw, models):
    assert encoder.representation == "sparse-tokens"
    assert load_encoder(model=str(raw)).kind == "splade"  # nothing in the files says SLIM
    assert list(encoder.vocabulary) == models.VOCABULARY
    assert encoder.surface_terms("Sunny [CLS]") == {"sun", "##ny"}


def test_wrong_choices_are_refused(raw, models, tmp_path):
    for options, error, match in [
        ({"document_top_k": 0}, ValueError, "document_top_k is 0"),
        ({"query_top_k": -1}, ValueError, "query_top_k is -1"),
        ({"document_max_length": 1000}, ValueError, "max_length is 1000"),
        ({"pooling": "sum"}, TypeError, "slim has no setting 'pooling'"),
        ({"dtype": "float16"}, ValueError, "dtype"),
    ]:
        with pytest.raises(error, match=match):
            load_encoder("slim", model=str(raw), **options)
    with_table = models.with_idf(tmp_path / "idf", {"sun": 2.0})
    with pytest.raises(RepresentationError, match="an encoder of their own"):
        load_encoder("slim", model=str(with_table))
