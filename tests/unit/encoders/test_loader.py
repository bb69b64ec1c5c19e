"""Vectors equal those of sentence-transformers in every layout; names are found, or it is said where not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder

from lexmax.index.errors import LexmaxError
from lexmax.retrieval.encoders.loader import load_model_encoder, resolve_model


@pytest.fixture(scope="session")
def idf(models):
    # sentence-transformers weighs special tokens, [UNK] among them, as the table says; lexmax weighs them 0.
    return {token: 0.0 if token in models.SPECIALS else 0.25 * i for i, token in enumerate(models.VOCABULARY)}


LAYOUTS = {
    "raw bert": lambda m, folder, idf: m.raw(folder),
    "raw distilbert": lambda m, folder, idf: m.raw(folder, "distilbert"),
    "raw untied": lambda m, folder, idf: m.raw(folder, tied=False),
    "version 6": lambda m, folder, idf: m.sentence_transformers_6(folder),
    "version 6 sum": lambda m, folder, idf: m.sentence_transformers_6(folder, "distilbert", pooling="sum"),
    "version 6 log1p": lambda m, folder, idf: m.sentence_transformers_6(folder, activation="log1p_relu"),
    "version 6 top-k": lambda m, folder, idf: m.sentence_transformers_6(folder, max_active_dims=4),
    "version 5": lambda m, folder, idf: m.sentence_transformers_5(folder, "distilbert"),
    "version 5 sum": lambda m, folder, idf: m.sentence_transformers_5(folder, pooling="sum"),
    "version 5 cut": lambda m, folder, idf: m.sentence_transformers_5(folder, max_seq_length=9),
    "table": lambda m, folder, idf: m.router_with_table(folder, torch.tensor(list(idf.values()))),
    "towers": lambda m, folder, idf: m.router_with_towers(folder),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_equal_sentence_transformers(models, dense, idf, tmp_path, layout):
    folder = LAYOUTS[layout](models, tmp_path / "model", idf)
    encoder = load_model_encoder(str(folder))
    reference = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    assert encoder.kind == ("inference-free" if layout == "table" else "splade")
    for ours, theirs in (
        (encoder.encode_documents, reference.encode_document),
        (encoder.encode_queries, reference.encode_query),
    ):
        expected = theirs(models.TEXTS, convert_to_sparse_tensor=False).numpy()
        np.testing.assert_allclose(dense(ours(models.TEXTS)), expected, atol=1e-5)


def test_idf_folder_equals_a_static_embedding_from_json(models, dense, idf, tmp_path):
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    folder = models.router_with_idf_folder(tmp_path / "model", idf)
    encoder = load_model_encoder(str(folder))
    static = SparseStaticEmbedding.from_json(str(folder / "idf.json"), tokenizer=models.tokenizer())
    expected = static(static.preprocess(models.TEXTS))["sentence_embedding"].detach().numpy()
    np.testing.assert_allclose(dense(encoder.encode_queries(models.TEXTS)), expected, atol=1e-6)
    plain = load_model_encoder(str(models.raw(tmp_path / "plain")), activation="log1p_relu")
    np.testing.assert_allclose(
        dense(encoder.encode_documents(models.TEXTS)), dense(plain.encode_documents(models.TEXTS)), atol=1e-6
    )


def test_the_towers_differ(models, dense, tmp_path):
    encoder = load_model_encoder(str(models.router_with_towers(tmp_path / "towers")))
    documents, queries = encoder.encode_documents(["sun"]), encoder.encode_queries(["sun"])
    assert np.abs(dense(documents) - dense(queries)).max() > 0.1


def test_importing_costs_no_torch():
    program = (
        "import sys; import lexmax.retrieval.encoders.loader, lexmax.retrieval.encoders.methods; "
        "print(sorted({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_missing_folders_are_named_without_asking_the_hub(tmp_path):
    for name in (str(tmp_path / "absent"), "./absent", "a/b/c"):
        with pytest.raises(LexmaxError, match="no model folder at"):
            resolve_model(name)


@pytest.fixture
def hub(monkeypatch):
    """Snapshots that huggingface_hub would find: {offline: folder or error}; the calls it got."""
    calls, places = [], {}

    def snapshot_download(model, *, allow_patterns, local_files_only):
        calls.append((model, allow_patterns, local_files_only))
        if isinstance(places[local_files_only], Exception):
            raise places[local_files_only]
        return str(places[local_files_only])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return places, calls


def test_the_cache_comes_before_the_hub(hub, raw):
    places, calls = hub
    places[True] = raw
    assert resolve_model("org/model") == raw
    assert [offline for _, _, offline in calls] == [True]


def test_an_incomplete_snapshot_is_fetched_again(hub, raw, tmp_path):
    places, calls = hub
    places.update({True: tmp_path, False: raw})
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model("org/model") == raw
    assert calls[-1] == ("org/model", ["*.safetensors", "*.json", "*.txt", "*.model", "artifact.metadata"], False)


def test_a_model_found_nowhere_says_what_was_tried(hub):
    places, _ = hub
    places.update({True: FileNotFoundError("not cached"), False: ConnectionError("no network\nmore")})
    with pytest.raises(LexmaxError, match=r"tried the folder org/model, .*cache \(not cached\), .*\(no network\);"):
        load_model_encoder("org/model")


def test_ids_stay_ids_in_settings(hub, raw):
    hub[0][True] = raw
    assert load_model_encoder("org/model").settings == {"model": "org/model"}


@pytest.mark.skipif("LEXMAX_SPLADE_TINY" not in os.environ, reason="needs a folder with SPLADE-tiny")
def test_a_real_splade_expands_to_related_words(tmp_path):
    folder = Path(os.environ["LEXMAX_SPLADE_TINY"])
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    encoder = load_model_encoder(str(folder))
    terms, weights = encoder.encode_queries(["what is the weather in new york now?"]).row(0)
    best = {encoder.vocabulary[term] for term in terms[np.argsort(-weights)[:8]]}
    assert {"weather", "york", "now"} <= best
    assert "today" in {encoder.vocabulary[term] for term in terms}
