"""Every key of a checkpoint's JSON files is obeyed as sentence-transformers does, harmless, or named in a refusal."""

import json
import random
import warnings
from pathlib import Path

import models
import numpy as np
import pytest
import torch

from lexmax import load_encoder
from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder

TEXTS = [text for text in models.TEXTS if text]
CARD = "config_sentence_transformers.json"
BERT = "sentence_bert_config.json"


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    models.write_json(path, {**content, **changes})


@pytest.fixture
def splade(tmp_path) -> Path:
    return models.sentence_transformers_6(tmp_path / "splade")


@pytest.fixture
def dense_folder(tmp_path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    source = models.raw(tmp_path / "dense-source")
    transformer = Transformer(str(source))
    SentenceTransformer(modules=[transformer, Pooling(32, "mean")]).save(str(tmp_path / "dense"))
    return tmp_path / "dense"


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("queries", ["model", "bag"])
def test_a_sparse_model_that_is_compared_by_the_cosine(splade, dense, top_k, queries):
    """Dot products of lexmax's vectors are the similarities of sentence-transformers, and so is their order."""
    from sentence_transformers import SparseEncoder

    edit(splade / CARD, similarity_fn_name="cosine", max_active_dims=top_k)
    encoder = load_encoder(model=str(splade), queries=queries)
    found = dense(encoder.encode_queries(TEXTS[:3])) @ dense(encoder.encode_documents(TEXTS)).T
    reference = SparseEncoder(str(splade))
    assert reference.similarity_fn_name == "cosine"
    documents = reference.encode_document(TEXTS)
    if queries == "model":
        wanted = reference.similarity(reference.encode_query(TEXTS[:3]), documents).to_dense().numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        plain = load_encoder(model=str(splade.with_name("splade-source")))
        assert plain.fingerprint != encoder.fingerprint
    for vectors in (encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)):
        np.testing.assert_allclose(np.linalg.norm(dense(vectors), axis=1), 1, atol=1e-6)


def test_an_inference_free_model_that_is_compared_by_the_cosine(tmp_path, dense):
    from sentence_transformers import SparseEncoder

    weights = torch.rand(len(models.VOCABULARY)) + 0.1
    weights[:5] = 0
    folder = models.router_with_table(tmp_path / "m", weights)
    edit(folder / CARD, similarity_fn_name="cosine")
    encoder, reference = load_encoder(model=str(folder)), SparseEncoder(str(folder))
    found = dense(encoder.encode_queries(TEXTS)) @ dense(encoder.encode_documents(TEXTS)).T
    wanted = reference.similarity(reference.encode_query(TEXTS), reference.encode_document(TEXTS)).to_dense().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_slim_does_not_know_the_cosine(splade):
    edit(splade / CARD, similarity_fn_name="cosine")
    with pytest.raises(RepresentationError, match="compared by the cosine, which SLIM does not know"):
        load_encoder("slim", model=str(splade))


def test_each_sides_length(splade, dense):
    """document_length and query_length of sentence-transformers 6."""
    from sentence_transformers import SparseEncoder

    edit(splade / BERT, document_length=6, query_length=4)
    encoder, reference = load_encoder(model=str(splade)), SparseEncoder(str(splade))
    for ours, theirs in (("encode_documents", "encode_document"), ("encode_queries", "encode_query")):
        wanted = getattr(reference, theirs)(TEXTS).to_dense().numpy()
        np.testing.assert_allclose(dense(getattr(encoder, ours)(TEXTS)), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ({}, 64),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, 64),
        ({"tokenizer_config.json": {"model_max_length": 9}}, 9),
        ({"tokenizer_config.json": {"model_max_length": 9}, BERT: {"max_seq_length": 12}}, 12),
        ({"tokenizer_config.json": {"model_max_length": 300}}, 64),
        ({BERT: {"max_seq_length": 12, "document_length": 7}}, 7),
    ],
)
def test_lengths_of_several_files(dense_folder, lengths, wanted):
    from sentence_transformers import SentenceTransformer

    for name, changes in lengths.items():
        edit(dense_folder / name, **changes)
    encoder, reference = load_model_encoder(str(dense_folder), kind="dense"), SentenceTransformer(str(dense_folder))
    assert encoder.document_side.text.max_length == wanted
    texts = [" ".join(models.VOCABULARY[5:] * 2), *TEXTS]
    expected = reference.encode_document(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(texts).vectors, expected, atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_dense_vectors_that_are_cut(dense_folder, similarity):
    from sentence_transformers import SentenceTransformer

    edit(dense_folder / CARD, truncate_dim=10, similarity_fn_name=similarity)
    encoder = load_model_encoder(str(dense_folder), kind="dense")
    reference = SentenceTransformer(str(dense_folder), truncate_dim=10, similarity_fn_name=similarity)
    wanted = reference.similarity(reference.encode_query(TEXTS), reference.encode_document(TEXTS)).numpy()
    assert encoder.dim == 10
    found = encoder.encode_queries(TEXTS).vectors @ encoder.encode_documents(TEXTS).vectors.T
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (CARD, {"similarity_fn_name": "euclidean"}, "similarity_fn_name 'euclidean'"),
        (CARD, {"similarity_fn_name": "manhattan"}, "similarity_fn_name 'manhattan'"),
        (CARD, {"score_scale": 20.0}, "'score_scale' is 20.0: lexmax does not know this setting"),
        (CARD, {"prompts": ["query: "]}, "expected texts by name"),
        (CARD, {"max_active_dims": "many"}, "max_active_dims is 'many'"),
        (BERT, {"pooler": "cls"}, "'pooler' is 'cls'"),
        (BERT, {"max_seq_length": "long"}, "max_seq_length is 'long'"),
        (BERT, {"config_args": {"num_hidden_layers": 1}}, "config_args with num_hidden_layers"),
        (BERT, {"query_expansion": {"strategy": "fixed", "length": 9}}, "query_expansion"),
        ("1_SpladePooling/config.json", {"temperature": 2.0}, "'temperature' is 2.0"),
        ("config.json", {"architectures": 3}, "malformed"),
        ("modules.json", None, "code of the checkpoint's own"),
        ("config.json", {"auto_map": {"AutoModelForMaskedLM": "own.Model"}}, r"auto_map: found code .* \(own.Model\)"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type: found 'relative_key'"),
        ("config.json", {"is_encoder_decoder": True}, "an encoder-decoder network"),
    ],
)
def test_other_settings_of_a_sparse_model_are_refused_by_name(splade, file, changes, message):
    if changes is None:
        types = [
            {"path": "", "type": "custom_st.Transformer"},
            {"path": "1_SpladePooling", "type": f"{models.V5}.SpladePooling"},
        ]
        models.write_json(splade / file, types)
    else:
        edit(splade / file, **changes)
    with pytest.raises(RepresentationError, match=message):
        load_encoder(model=str(splade))


def test_harmless_settings_change_nothing(splade, dense):
    expected = dense(load_encoder(model=str(splade)).encode_documents(TEXTS))
    edit(splade / CARD, requirements=["sentence-transformers>=6"], truncated=None, notes="")
    edit(splade / BERT, unpad_inputs=False, model_args={"attn_implementation": "eager"})
    edit(splade / "1_SpladePooling" / "config.json", chunk_size=4)
    edit(splade / "tokenizer_config.json", padding_side="left", clean_up_tokenization_spaces=True)
    np.testing.assert_allclose(dense(load_encoder(model=str(splade)).encode_documents(TEXTS)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity": "l2"}, "similarity 'l2', not 'cosine'"),
        ({"interaction": "flipr"}, "interaction 'flipr', not 'colbert'"),
        ({"relu": True}, "relu True, not False"),
        ({"matryoshka": [32]}, r"'matryoshka' is \[32\]"),
        ({"query_maxlen": "32"}, "query_maxlen is '32'"),
    ],
)
def test_settings_of_a_stanford_colbert(colbert_models, tmp_path, changes, message):
    harmless = {"lr": 1e-5, "meta": {"hostname": "x"}, "nbits": 2, "similarity": "cosine", "relu": False}
    folder = colbert_models.stanford(tmp_path / "m", **harmless)
    load_encoder(model=str(folder))
    edit(folder / "artifact.metadata", **changes)
    with pytest.raises(RepresentationError, match=message):
        load_encoder(model=str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity_fn_name": "meanmaxsim"}, "similarity_fn_name 'meanmaxsim', not MaxSim"),
        ({"similarity_fn_name": "xtr"}, "similarity_fn_name 'xtr'"),
        ({"default_prompt_name": "query"}, "default_prompt_name 'query'"),
        ({"token_pooling": 2}, "'token_pooling' is 2"),
    ],
)
def test_settings_of_a_pylate_model(colbert_models, tmp_path, changes, message):
    folder = colbert_models.pylate(tmp_path / "m")
    edit(folder / CARD, **changes)
    with pytest.raises(RepresentationError, match=message):
        load_encoder(model=str(folder))


def test_weights_that_the_network_makes_no_use_of_are_refused(tmp_path):
    """As of relative positions or adapters; heads and old buffers are no matter."""
    from safetensors.torch import load_file, save_file

    folder = models.raw(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    harmless = {"bert.embeddings.position_ids": torch.arange(64)[None], "bert.pooler.dense.weight": torch.zeros(32, 32),
                "classifier.weight": torch.zeros(2, 32)}  # fmt: skip
    save_file({**tensors, **harmless}, folder / "model.safetensors", {"format": "pt"})
    load_encoder(model=str(folder))
    name = "bert.encoder.layer.0.attention.self.distance_embedding.weight"
    save_file({**tensors, name: torch.zeros(127, 16)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RepresentationError, match=f"makes no use of 1 tensors of the weights \\({name}"):
        load_encoder(model=str(folder))


@pytest.mark.parametrize("spare", [267, 898, 1024])
def test_spare_rows_of_the_embedding_table(tmp_path, spare):
    n = len(models.VOCABULARY) + spare
    folder = models.raw(tmp_path / "m", n_terms=n)
    encoder = load_encoder(model=str(folder))
    assert encoder.vocabulary[-1] == f"[id {n - 1}]"
    terms, _ = encoder.encode_documents(["the sun"]).row(0)
    assert terms.max() >= len(models.VOCABULARY)  # such rows have logits, as others
    with pytest.raises(RepresentationError, match="put the tokenizer files of this model"):
        load_encoder(model=str(models.raw(tmp_path / "other", n_terms=n + 1025 - spare)))


def test_loading_and_encoding_leave_the_process_as_it_was(splade, dense_folder):
    import os
    import signal

    def state():
        return (torch.get_num_threads(), torch.initial_seed(), torch.get_rng_state().tolist(), torch.get_default_dtype(),
                torch.is_grad_enabled(), random.getstate(), np.random.get_state()[2], np.geterr(), dict(os.environ),
                warnings.filters[:], signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))  # fmt: skip

    load_encoder(model=str(splade)).encode_documents(TEXTS)  # libraries change the environment when they are imported first
    before = state()
    load_encoder(model=str(splade)).encode_documents(TEXTS)
    load_model_encoder(str(dense_folder), kind="dense").encode_documents(TEXTS)
    assert state() == before
