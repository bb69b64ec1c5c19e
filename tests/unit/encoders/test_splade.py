from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lexmax.index.errors import RepresentationError
from lexmax.index.representations.sparse import SparseVectors
from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.encoders.tower import keep_largest


@pytest.fixture(scope="module")
def encoder(raw):
    return load_model_encoder(str(raw))


def test_batches_and_order_do_not_change_rows(encoder, raw, models, dense):
    texts = models.TEXTS * 3
    expected = dense(encoder.encode_documents(texts))
    assert (np.diff(encoder.encode_documents(texts).indptr) > 0).all()  # [CLS] and [SEP] weigh, so "" too
    alone = np.concatenate([dense(encoder.encode_documents([text])) for text in texts])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    shuffled = np.random.default_rng(0).permutation(len(texts))
    pairs = load_model_encoder(str(raw), batch_size=2).encode_documents([texts[i] for i in shuffled])
    np.testing.assert_allclose(dense(pairs), expected[shuffled], atol=1e-5)
    again = encoder.encode_documents(texts)
    np.testing.assert_array_equal(dense(again), expected)


def test_no_texts_give_no_rows(encoder):
    assert len(encoder.encode_documents([])) == len(encoder.encode_queries([])) == 0


def test_threads_share_an_encoder(encoder, models, dense):
    expected = [dense(encoder.encode_queries([text])) for text in models.TEXTS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: dense(encoder.encode_queries([text])), models.TEXTS * 5))
    for row, wanted in zip(found, expected * 5, strict=True):
        np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_vocabulary_and_surface_terms(encoder, models):
    assert list(encoder.vocabulary) == models.VOCABULARY
    assert encoder.surface_terms("Sunny [CLS] days, zzz") == {"sun", "##ny", "day", "##s", ","}


def test_top_k_keeps_the_largest(encoder, raw, models, dense):
    pruned = load_model_encoder(str(raw), document_top_k=3, query_top_k=2)
    for k, found, whole in (
        (3, pruned.encode_documents(models.TEXTS), encoder.encode_documents(models.TEXTS)),
        (2, pruned.encode_queries(models.TEXTS), encoder.encode_queries(models.TEXTS)),
    ):
        assert np.diff(found.indptr).tolist() == [k] * len(models.TEXTS)
        rows = dense(whole)
        rows[rows < np.sort(rows, axis=1)[:, [-k]]] = 0
        np.testing.assert_allclose(dense(found), rows, atol=1e-6)


def test_equal_weights_are_kept_by_lower_term():
    rows = SparseVectors.from_rows([([9, 4, 7], [1, 1, 2]), ([3], [1])])
    kept = keep_largest(rows, 2)
    assert kept.terms.tolist() == [4, 7, 3]
    assert keep_largest(rows, None) is rows


@pytest.mark.parametrize("sides", ["query", "document", "both"])
def test_lexical_keeps_terms_of_the_text(encoder, raw, models, sides):
    masked = load_model_encoder(str(raw), lexical=sides)
    for side in ("query", "document"):
        name = "encode_queries" if side == "query" else "encode_documents"
        found, whole = (getattr(e, name)(models.TEXTS) for e in (masked, encoder))
        for i, text in enumerate(models.TEXTS):
            terms, weights = whole.row(i)
            if sides in (side, "both"):
                stands = [models.VOCABULARY[term] in encoder.surface_terms(text) for term in terms]
                terms, weights = terms[stands], weights[stands]
            np.testing.assert_array_equal(found.row(i)[0], terms)
            np.testing.assert_allclose(found.row(i)[1], weights, atol=1e-6)


def test_splade_doc_takes_queries_as_sets_of_wordpieces(raw, models):
    encoder = load_model_encoder(str(raw), queries="bag")
    found = encoder.encode_queries(["the the weather [SEP] zzz", ""])
    assert [models.VOCABULARY[term] for term in found.row(0)[0]] == ["the", "weather"]
    assert found.weights.tolist() == [1, 1]
    assert len(found.row(1)[0]) == 0


def test_lengths_cut_each_side(raw, models, dense):
    text = "sun snow wind ice hill"
    cut = load_model_encoder(str(raw), document_max_length=4, query_max_length=3)
    whole = load_model_encoder(str(raw))
    np.testing.assert_allclose(dense(cut.encode_documents([text])), dense(whole.encode_documents(["sun snow"])), atol=1e-6)
    np.testing.assert_allclose(dense(cut.encode_queries([text])), dense(whole.encode_queries(["sun"])), atol=1e-6)


def test_settings_make_the_same_encoder_again(raw, models, dense, tmp_path, monkeypatch):
    options = {"document_top_k": 4, "lexical": "query", "pooling": "sum", "dtype": "bfloat16"}
    monkeypatch.chdir(raw.parent)
    first = load_model_encoder(raw.name, batch_size=3, **options)
    assert first.settings == {"model": str(raw), **options}
    monkeypatch.chdir(tmp_path)
    again = load_model_encoder(kind=first.kind, **json.loads(json.dumps(first.settings)))
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(
        dense(again.encode_documents(models.TEXTS[:1])), dense(first.encode_documents(models.TEXTS[:1]))
    )


@pytest.mark.parametrize(
    "options",
    [
        {"document_top_k": 4},
        {"query_top_k": 4},
        {"document_max_length": 9},
        {"query_max_length": 9},
        {"pooling": "sum"},
        {"activation": "log1p_relu"},
        {"lexical": "both"},
        {"queries": "bag"},
        {"dtype": "bfloat16"},
    ],
)
def test_fingerprint_follows_what_changes_vectors(encoder, raw, options):
    assert load_model_encoder(str(raw), **options).fingerprint != encoder.fingerprint


def test_fingerprint_ignores_place_and_batch(encoder, raw, models, tmp_path):
    assert encoder.fingerprint.startswith("splade:")
    elsewhere = models.raw(tmp_path / "elsewhere")
    assert load_model_encoder(str(elsewhere), batch_size=1).fingerprint == encoder.fingerprint
    other = models.raw(tmp_path / "other", seed=5)
    assert load_model_encoder(str(other)).fingerprint != encoder.fingerprint


def test_query_model_encodes_queries_alone(models, raw, dense, tmp_path):
    other = models.raw(tmp_path / "query", "distilbert", seed=3)
    both = load_model_encoder(str(raw), query_model=str(other))
    np.testing.assert_array_equal(
        dense(both.encode_queries(models.TEXTS)),
        dense(load_model_encoder(str(other)).encode_queries(models.TEXTS)),
    )
    np.testing.assert_array_equal(
        dense(both.encode_documents(models.TEXTS)),
        dense(load_model_encoder(str(raw)).encode_documents(models.TEXTS)),
    )
    assert both.settings["query_model"] == str(other)


def test_towers_of_different_vocabularies_are_refused(models, raw, tmp_path):
    other = models.raw(tmp_path / "other")
    words = [*models.VOCABULARY[:-2], "walk2", "run2"]
    models.tokenizer(words).save_pretrained(other)
    with pytest.raises(RepresentationError, match="different vocabularies"):
        load_model_encoder(str(raw), query_model=str(other))


def test_a_decoder_with_spare_rows_is_read(models, tmp_path):
    folder = models.raw(tmp_path / "spare", n_terms=len(models.VOCABULARY) + 8)
    encoder = load_model_encoder(str(folder))
    assert len(encoder.vocabulary) == len(models.VOCABULARY) + 8
    assert encoder.encode_documents(["sun"]).terms.max() >= len(models.VOCABULARY)


def test_prompts_of_the_checkpoint_are_put_before_texts(models, dense, tmp_path):
    folder = models.sentence_transformers_6(tmp_path / "v6", prompts={"query": "search query ", "document": "document "})
    plain = load_model_encoder(str(models.raw(tmp_path / "plain")))
    encoder = load_model_encoder(str(folder))
    np.testing.assert_allclose(
        dense(encoder.encode_queries(["sun"])), dense(plain.encode_queries(["search query sun"])), atol=1e-5
    )
    np.testing.assert_allclose(
        dense(encoder.encode_documents(["sun"])), dense(plain.encode_documents(["document sun"])), atol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"document_max_length": 65}, "reads 64 tokens at most"),
        ({"query_max_length": 2}, "max_length is 2"),
        ({"document_top_k": 0}, "top_k is 0"),
        ({"pooling": "mean"}, "pooling takes max or sum"),
        ({"lexical": "all"}, "lexical takes none or query"),
        ({"dtype": "float16"}, "dtype takes float32 or bfloat16 or int8"),
        ({"queries": "bag", "lexical": "both"}, "lexical already"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_values_out_of_range_are_refused(raw, options, message):
    with pytest.raises(ValueError, match=message):
        load_model_encoder(str(raw), **options)


def test_unknown_options_are_named_with_the_known_ones(raw):
    with pytest.raises(TypeError, match="no setting 'top_q': there are activation, document_max"):
        load_model_encoder(str(raw), top_q=3)


def test_a_broken_network_is_refused_at_once(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes((raw / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(RepresentationError, match="cannot load"):
        load_model_encoder(str(folder))
