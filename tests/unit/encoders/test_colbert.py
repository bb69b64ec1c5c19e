from __future__ import annotations

import shutil
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.encoders.registry import load_encoder
from lexmax.retrieval.encoders.token_pooling import pool_tokens, ward_clusters


@pytest.fixture(scope="module")
def encoder(stanford):
    return load_model_encoder(str(stanford), kind="colbert")


def assert_same(found, expected, atol=1e-5):
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    np.testing.assert_allclose(found.tokens, expected.tokens, atol=atol)


def test_batches_and_order_do_not_change_vectors(encoder, stanford, colbert_models):
    texts = colbert_models.TEXTS
    expected = encoder.encode_documents(texts)
    assert (expected.dim, encoder.dim) == (colbert_models.DIM, colbert_models.DIM)
    backwards = load_model_encoder(str(stanford), batch_size=2).encode_documents(texts[::-1])
    for i in range(len(texts)):
        np.testing.assert_allclose(backwards.row(len(texts) - 1 - i), expected.row(i), atol=1e-5)
        np.testing.assert_allclose(encoder.encode_documents([texts[i]]).tokens, expected.row(i), atol=1e-5)


def test_no_texts_give_no_rows(encoder, colbert_models):
    for found in (encoder.encode_documents([]), encoder.encode_queries([])):
        assert (len(found), found.tokens.shape) == (0, (0, colbert_models.DIM))


@pytest.mark.parametrize("text", ["", "  ", "?!", string.punctuation])
def test_a_document_without_words_is_its_special_tokens(encoder, text):
    assert encoder.encode_documents([text]).n_tokens == 3
    assert encoder.document_spans(text) == [("[CLS]", 0, 0), ("[unused1]", 0, 0), ("[SEP]", 0, 0)]


def test_threads_share_an_encoder(encoder, stanford, colbert_models):
    expected = encoder.encode_queries(colbert_models.TEXTS)
    fresh = load_model_encoder(str(stanford))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(fresh.encode_queries, [colbert_models.TEXTS] * 8):
            assert_same(found, expected)


def test_document_spans_are_the_rows(encoder, colbert_models):
    text = "Sunny day, in NY."
    assert encoder.document_spans(text) == [
        ("[CLS]", 0, 0), ("[unused1]", 0, 0), ("sun", 0, 3), ("##ny", 3, 5), ("day", 6, 9), ("in", 11, 13), ("ny", 14, 16),
        ("[SEP]", 0, 0),
    ]  # fmt: skip
    for text in colbert_models.TEXTS:
        assert len(encoder.document_spans(text)) == encoder.encode_documents([text]).n_tokens


def test_query_spans_end_in_expansion_tokens(encoder):
    spans = encoder.query_spans("sun, rain")
    assert spans[1:6] == [("[unused0]", 0, 0), ("sun", 0, 3), (",", 3, 4), ("rain", 5, 9), ("[SEP]", 0, 0)]
    assert spans[6:] == [("[MASK]", 0, 0)] * 6


def test_spans_leave_the_prompt_out(colbert_models, tmp_path):
    folder = colbert_models.sentence_transformers(tmp_path / "model", prompts={"document": "the text: ", "query": "[unused0] "})
    encoder = load_model_encoder(str(folder))
    spans = encoder.document_spans("cold sun")
    assert spans[-3:] == [("cold", 0, 4), ("sun", 5, 8), ("[SEP]", 0, 0)]
    assert {span[1:] for span in spans[:-3]} == {(0, 0)}
    assert [span for span in encoder.query_spans("sun") if span[0] == "[unused0]"] == [("[unused0]", 0, 0)]


def test_a_marker_is_its_id_whatever_the_tokenizer_makes_of_its_text(encoder):
    tokens = [token for token, *_ in encoder.query_spans("sun")]
    assert tokens.count("[unused0]") == 1
    assert encoder._wordpieces.pieces(["[unused0]"]) != [[encoder._wordpieces.token_id("[unused0]")]]


def test_long_documents_are_counted(encoder, stanford):
    texts = ["sun " * 17, "sun " * 18, "sun", ""]  # 20 tokens: [CLS], marker, 17 words, [SEP]
    assert (encoder.document_length, encoder.n_truncated(texts)) == (20, 1)
    assert encoder.n_truncated(texts, side="query") == 2
    longer = load_model_encoder(str(stanford), document_length=21)
    assert longer.n_truncated(texts) == 0
    assert longer.encode_documents(texts[1:2]).n_tokens == 21
    assert encoder.document_spans(texts[1])[-2:] == [("sun", 64, 67), ("[SEP]", 0, 0)]


def test_lengths_and_expansion_are_the_users_to_change(stanford, colbert_models, tmp_path):
    assert load_model_encoder(str(stanford), query_length=30).encode_queries(["sun"]).n_tokens == 30
    assert load_model_encoder(str(stanford), query_expansion=False).encode_queries(["sun"]).n_tokens == 4
    folder = colbert_models.pylate(tmp_path / "model", do_query_expansion=False)
    assert load_model_encoder(str(folder)).encode_queries(["sun"]).n_tokens == 4
    widened = load_model_encoder(str(folder), query_expansion=True, query_length=9)
    assert [token for token, *_ in widened.query_spans("sun")].count("[MASK]") == 5
    assert widened.encode_queries(["sun"]).n_tokens == 9


def test_a_smallest_width_stays_when_the_length_changes(colbert_models, tmp_path):
    expansion = {"strategy": "min", "length": 8}
    folder = colbert_models.sentence_transformers(tmp_path / "model", query_expansion=expansion, query_length=12)
    longer = load_model_encoder(str(folder), query_length=40)
    assert [len(longer.query_spans(text)) for text in ("sun", "sun " * 20)] == [8, 23]
    assert len(load_model_encoder(str(folder), query_length=6).query_spans("sun")) == 6


def test_pooling_keeps_a_part_and_has_no_spans(encoder, stanford):
    pooled = load_model_encoder(str(stanford), pool_factor=4, protected_tokens=2)
    text = "the weather in new york " * 3
    assert (encoder.encode_documents([text]).n_tokens, pooled.encode_documents([text]).n_tokens) == (18, 2 + 16 // 4)
    assert pooled.document_spans(text) is None
    assert_same(pooled.encode_queries([text]), encoder.encode_queries([text]))


def unit(n, dim=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("n", [2, 3, 10, 150])
@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_those_of_scipy(n, seed):
    hierarchy = import_module("scipy.cluster.hierarchy")
    vectors = unit(n, seed=seed)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    tree = hierarchy.linkage(1 - cosines[np.triu_indices(n, 1)], method="ward")
    for n_clusters in {1, n // 2, max(1, n // 3), n - 1, n}:
        expected = hierarchy.fcluster(tree, n_clusters, criterion="maxclust")
        found = ward_clusters(vectors, n_clusters)
        assert (found[found] == found).all()  # each cluster is named by a member
        np.testing.assert_array_equal(found[:, None] == found, expected[:, None] == expected)


def test_equal_vectors_are_merged_first():
    vectors = unit(6)[[0, 1, 0, 2, 1, 0]]
    assert ward_clusters(vectors, 3).tolist() == [0, 1, 0, 3, 1, 0]
    pooled = pool_tokens(vectors, factor=2, n_protected=0)
    np.testing.assert_allclose(pooled, unit(6)[:3], atol=1e-6)


def test_pooled_vectors_are_means_of_unit_length():
    vectors = unit(7)
    pooled = pool_tokens(vectors, factor=6, n_protected=1)
    mean = vectors[1:].mean(0)
    np.testing.assert_allclose(pooled, [vectors[0], mean / np.linalg.norm(mean)], atol=1e-6)
    for few in (vectors[:0], vectors[:1], vectors[:2]):
        np.testing.assert_array_equal(pool_tokens(few, factor=2, n_protected=1), few)


def test_pooling_vectors_without_a_common_direction_keeps_the_first() -> None:
    """The mean of v and -v is 0, that of v, v', -v, -v' too: a division by its length gave NaN."""
    v, w = np.float32([0.6, 0.8]), np.float32([0.8, -0.6])
    np.testing.assert_array_equal(pool_tokens(np.stack([v, -v]), factor=2, n_protected=0), v[None])
    np.testing.assert_array_equal(pool_tokens(np.stack([v, w, -v, -w]), factor=4, n_protected=0), v[None])
    np.testing.assert_array_equal(pool_tokens(np.stack([w, v, -v]), factor=2, n_protected=1), np.stack([w, v]))
    mixed = np.stack([v, -v, w, w, w])
    pooled = pool_tokens(mixed, factor=5, n_protected=0)
    np.testing.assert_allclose(pooled, w[None], atol=1e-6)


def test_bfloat16_is_near_and_has_another_fingerprint(encoder, stanford, colbert_models):
    half = load_model_encoder(str(stanford), dtype="bfloat16")
    found = half.encode_documents(colbert_models.TEXTS)
    assert_same(found, encoder.encode_documents(colbert_models.TEXTS), atol=0.1)
    np.testing.assert_allclose(np.linalg.norm(found.tokens, axis=1), 1, atol=1e-6)
    assert half.fingerprint != encoder.fingerprint


def test_settings_make_the_same_encoder(stanford):
    made = load_encoder(model=str(stanford), document_length=15, pool_factor=2)
    assert made.settings == {"model": str(stanford), "document_length": 15, "pool_factor": 2}
    assert load_encoder(made.kind, **made.settings).fingerprint == made.fingerprint


@pytest.mark.parametrize(
    "options",
    [
        {"document_length": 19}, {"query_length": 13}, {"query_expansion": False}, {"pool_factor": 2},
        {"pool_factor": 2, "protected_tokens": 0},
    ],
)  # fmt: skip
def test_what_changes_vectors_changes_the_fingerprint(encoder, stanford, options):
    assert load_model_encoder(str(stanford), **options).fingerprint != encoder.fingerprint


def test_fingerprints_follow_the_files_not_their_place(encoder, stanford, colbert_models, tmp_path):
    moved = shutil.copytree(stanford, tmp_path / "moved")
    assert load_model_encoder(str(moved), batch_size=1).fingerprint == encoder.fingerprint
    assert load_model_encoder(str(moved), protected_tokens=3).fingerprint == encoder.fingerprint  # nothing is pooled
    colbert_models.edit(moved / "artifact.metadata", attend_to_mask_tokens=True)
    assert load_model_encoder(str(moved)).fingerprint != encoder.fingerprint
    colbert_models.edit(moved / "artifact.metadata", attend_to_mask_tokens=False)
    weights = load_file(moved / "model.safetensors")
    weights["linear.weight"][0, 0] += 1
    save_file(weights, moved / "model.safetensors", {"format": "pt"})
    assert load_model_encoder(str(moved)).fingerprint != encoder.fingerprint


def test_the_fingerprint_covers_the_dense_modules(colbert_models, tmp_path):
    folder = colbert_models.pylate(tmp_path / "model")
    before = load_model_encoder(str(folder)).fingerprint
    colbert_models.edit(folder / "1_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh")
    assert load_model_encoder(str(folder)).fingerprint != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"document_length": 65}, "document_length is 65, but the model reads 1 to 64"),
        ({"query_length": 0}, "query_length is 0"),
        ({"query_length": 3}, "room beside the special tokens, >= 4"),
        ({"pool_factor": 0}, "pool_factor is 0"),
        ({"protected_tokens": -1}, "protected_tokens is -1"),
        ({"dtype": "float16"}, "dtype takes float32 or bfloat16"),
    ],
)
def test_values_out_of_range_are_refused(stanford, options, message):
    with pytest.raises(ValueError, match=message):
        load_model_encoder(str(stanford), **options)


def test_options_of_other_encoders_are_refused(stanford):
    with pytest.raises(TypeError, match="no setting 'document_top_k': there are document_length"):
        load_model_encoder(str(stanford), document_top_k=3)


def test_making_and_laying_out_needs_no_torch(stanford):
    program = (
        "import sys; from lexmax.retrieval.encoders.registry import load_encoder; "
        f"e = load_encoder('colbert', model={str(stanford)!r}); "
        "e.fingerprint, e.dim, e.query_spans('sun'), e.n_truncated(['']); "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_incomplete_weights_are_refused_at_the_first_text(stanford, tmp_path):
    folder = shutil.copytree(stanford, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    encoder = load_model_encoder(str(folder))
    with pytest.raises(RepresentationError, match="lack 1 parameters of BertModel"):
        encoder.encode_queries(["sun"])


def test_a_pooler_is_not_needed(encoder, stanford, tmp_path):
    folder = shutil.copytree(stanford, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".pooler." not in name}
    assert len(kept) == len(weights) - 2
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert_same(load_model_encoder(str(folder)).encode_queries(["sun"]), encoder.encode_queries(["sun"]))


def test_old_bin_checkpoints_load(encoder, stanford, tmp_path):
    import torch

    folder = shutil.copytree(stanford, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_same(load_model_encoder(str(folder)).encode_queries(["sun"]), encoder.encode_queries(["sun"]))


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({}, r"linear.weight \(none\) instead of \(16, 32\)"),
        ({"linear.weight": (8, 32)}, r"linear.weight \(8, 32\) instead of \(16, 32\)"),
    ],
)
def test_projections_of_another_size_are_refused(colbert_models, tmp_path, tensors, found):
    import torch

    folder = colbert_models.pylate(tmp_path / "model")
    made = {name: torch.ones(shape) for name, shape in tensors.items()} or {"other": torch.ones(1)}
    save_file(made, folder / "1_Dense" / "model.safetensors")
    encoder = load_model_encoder(str(folder))
    with pytest.raises(RepresentationError, match=found):
        encoder.encode_queries(["sun"])


def test_broken_projection_files_are_refused(colbert_models, tmp_path):
    folder = colbert_models.pylate(tmp_path / "model")
    (folder / "1_Dense" / "model.safetensors").write_bytes(b"?")
    with pytest.raises(RepresentationError, match=r"1_Dense.model.safetensors: cannot read the weights"):
        load_model_encoder(str(folder)).encode_queries(["sun"])
