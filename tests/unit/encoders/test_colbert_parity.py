"""Token vectors equal those of sentence-transformers, and of what Stanford and PyLate compute, in every layout."""

from __future__ import annotations

import string

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.modules.token_pooling import HierarchicalTokenPooling
from transformers import AutoModel, AutoTokenizer

from lexmax.retrieval.encoders.loader import load_model_encoder

FIXED = {"strategy": "fixed", "length": 12}
LAYOUTS = {
    "stanford": lambda m, folder: m.stanford(folder),
    "stanford attend": lambda m, folder: m.stanford(folder, attend_to_mask_tokens=True),
    "stanford punctuation": lambda m, folder: m.stanford(folder, mask_punctuation=False),
    "pylate": lambda m, folder: m.pylate(folder),
    "pylate defaults": lambda m, folder: m.pylate(folder, skiplist_words=None, query_length=None),
    "pylate no expansion": lambda m, folder: m.pylate(folder, do_query_expansion=False),
    "pylate unused": lambda m, folder: m.pylate(
        folder, prefixes=False, query_prefix="[unused0]", document_prefix="[unused1]", attend_to_expansion_tokens=True
    ),
    "native fixed": lambda m, folder: m.sentence_transformers(folder, query_expansion=FIXED),
    "native attend": lambda m, folder: m.sentence_transformers(folder, query_expansion={**FIXED, "attend": True}),
    "native token": lambda m, folder: m.sentence_transformers(folder, query_expansion={**FIXED, "token": "sun"}),
    "native min": lambda m, folder: m.sentence_transformers(folder, query_expansion={**FIXED, "strategy": "min"}),
    "native min cut": lambda m, folder: m.sentence_transformers(
        folder, query_length=15, query_expansion={**FIXED, "strategy": "min"}
    ),
    "native no expansion": lambda m, folder: m.sentence_transformers(folder, query_length=10, document_length=None),
    "native both skip": lambda m, folder: m.sentence_transformers(
        folder, skiplist=["?", "the"], tasks=["query", "document"], query_expansion=FIXED
    ),
    "native text prompts": lambda m, folder: m.sentence_transformers(
        folder, prompts={"query": "search: ", "document": "text, "}, skiplist=[]
    ),
}


def assert_rows(found, expected):
    assert np.diff(found.offsets).tolist() == [len(matrix) for matrix in expected]
    for i, matrix in enumerate(expected):
        np.testing.assert_allclose(found.row(i), matrix, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_equal_sentence_transformers(colbert_models, tmp_path, layout):
    folder = LAYOUTS[layout](colbert_models, tmp_path / "model")
    encoder = load_model_encoder(str(folder), batch_size=3)
    reference = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    assert encoder.kind == "colbert"
    assert_rows(
        encoder.encode_documents(colbert_models.TEXTS), reference.encode_document(colbert_models.TEXTS, convert_to_numpy=True)
    )
    assert_rows(
        encoder.encode_queries(colbert_models.TEXTS), reference.encode_query(colbert_models.TEXTS, convert_to_numpy=True)
    )


@torch.inference_mode()
def colbert(folder, project, ids, mask):
    """Unit vectors of every position, as Stanford and PyLate compute them from ids (1, n)."""
    hidden = AutoModel.from_pretrained(str(folder))(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([mask]))
    return torch.nn.functional.normalize(project(hidden.last_hidden_state), dim=-1)[0].numpy()


@pytest.mark.parametrize("attend", [False, True])
def test_stanford_computation(colbert_models, tmp_path, attend):
    folder = colbert_models.stanford(tmp_path / "model", attend_to_mask_tokens=attend)
    encoder, tokenizer = load_model_encoder(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    weight = load_file(folder / "model.safetensors")["linear.weight"]
    queries, documents = [], []
    for text in colbert_models.TEXTS:
        ids = tokenizer(text, padding="max_length", truncation=True, max_length=11)["input_ids"]
        ids = [ids[0], tokenizer.convert_tokens_to_ids("[unused0]"), *ids[1:]]
        mask = [1 if attend or number != tokenizer.pad_token_id else 0 for number in ids]
        ids = [tokenizer.mask_token_id if number == tokenizer.pad_token_id else number for number in ids]
        queries.append(colbert(folder, lambda x: x @ weight.T, ids, mask))
        ids = tokenizer(text, truncation=True, max_length=19)["input_ids"]
        ids = [ids[0], tokenizer.convert_tokens_to_ids("[unused1]"), *ids[1:]]
        kept = [i for i, token in enumerate(tokenizer.convert_ids_to_tokens(ids)) if token not in string.punctuation]
        documents.append(colbert(folder, lambda x: x @ weight.T, ids, [1] * len(ids))[kept])
    assert {len(matrix) for matrix in queries} == {12}
    assert_rows(encoder.encode_queries(colbert_models.TEXTS), queries)
    assert_rows(encoder.encode_documents(colbert_models.TEXTS), documents)


def test_pylate_denses_with_bias_residual_and_activation(colbert_models, tmp_path):
    denses = [
        {"out": 24, "bias": True, "residual": True, "activation": "torch.nn.modules.activation.GELU"},
        {"width": 24, "out": 24, "residual": True, "activation": "torch.nn.modules.activation.Tanh"},
        {"width": 24, "bias": True},
    ]
    folder = colbert_models.pylate(tmp_path / "model", denses, do_query_expansion=False)
    first, second, third = (load_file(folder / f"{number}_Dense" / "model.safetensors") for number in (1, 2, 3))

    def project(x):
        x = torch.nn.functional.gelu(x @ first["linear.weight"].T + first["linear.bias"]) + x @ first["residual.weight"].T
        x = torch.tanh(x @ second["linear.weight"].T) + x
        return x @ third["linear.weight"].T + third["linear.bias"]

    encoder, tokenizer = load_model_encoder(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    expected = []
    for text in colbert_models.TEXTS:
        ids = tokenizer(text, truncation=True, max_length=11)["input_ids"]
        ids = [ids[0], tokenizer.convert_tokens_to_ids("[Q] "), *ids[1:]]
        expected.append(colbert(folder, project, ids, [1] * len(ids)))
    assert_rows(encoder.encode_queries(colbert_models.TEXTS), expected)


@pytest.mark.parametrize(("factor", "protected"), [(2, 1), (3, 2), (100, 0)])
def test_pooling_equals_sentence_transformers(colbert_models, stanford, factor, protected):
    encoder = load_model_encoder(str(stanford), pool_factor=factor, protected_tokens=protected)
    plain = load_model_encoder(str(stanford)).encode_documents(colbert_models.TEXTS)
    pooling = HierarchicalTokenPooling(factor, num_protected_tokens=protected)
    pooled = encoder.encode_documents(colbert_models.TEXTS)
    assert pooled.n_tokens < plain.n_tokens
    for i in range(len(plain)):
        expected = pooling.pool([torch.tensor(plain.row(i))])[0].numpy()
        found = pooled.row(i)
        np.testing.assert_allclose(found[:protected], expected[:protected], atol=1e-5)
        # scipy numbers clusters in an order of its own.
        np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=1e-5)
