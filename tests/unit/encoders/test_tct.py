"""TCT-ColBERT against the published computation (castorini/tct_colbert, pyserini), on a tiny random BERT."""

import numpy as np
import pytest
import torch
from models import TEXTS, VOCABULARY, masked_lm, raw, tokenizer, write_json

from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.encoders.specs import parse_encoder_spec

LETTERS = [*VOCABULARY, "[", "]", "d", "q"]
TEXTS = [text for text in TEXTS if text]
LONG = "the weather in new york and the snow on the hill by the river " * 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tct") / "m"
    masked_lm(n_terms=len(LETTERS)).save_pretrained(folder)
    tokenizer(LETTERS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def published(folder):
    """Documents and queries -> vectors, as the published encoders compute them."""
    from transformers import AutoModel, BertTokenizer

    network, tokens = AutoModel.from_pretrained(folder).eval(), BertTokenizer.from_pretrained(folder)

    def states(texts, length):
        inputs = tokens(
            texts, max_length=length, padding="longest", truncation=True, add_special_tokens=False, return_tensors="pt"
        )
        with torch.no_grad():
            return network(**inputs).last_hidden_state[:, 4:], inputs["attention_mask"][:, 4:, None].float()

    def documents(texts, length=64):
        found, mask = states([f"[CLS] [D] {text}" for text in texts], length)
        return ((found * mask).sum(1) / mask.sum(1).clamp(min=1e-9)).numpy()

    def queries(texts, length=36):
        return np.stack([states([f"[CLS] [Q] {text}" + "[MASK]" * length], length)[0].mean(1)[0].numpy() for text in texts])

    return documents, queries


def test_vectors_are_those_of_the_published_code(folder, published):
    encoder = load_model_encoder(str(folder), kind="tct", batch_size=3)
    documents, queries = published
    texts = [*TEXTS, LONG, ""]
    np.testing.assert_allclose(encoder.encode_documents(texts).vectors, documents(texts), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries([*TEXTS, LONG, ""]).vectors, queries([*TEXTS, LONG, ""]), atol=1e-5)
    assert not encoder.encode_documents([""]).vectors.any()
    assert (encoder.dim, encoder.kind) == (32, "tct")
    assert encoder.n_truncated(texts) == 1


def test_lengths_are_settings_and_masks_fill_the_querys(folder, published):
    encoder = load_model_encoder(str(folder), kind="tct", document_length=9, query_length=12)
    documents, queries = published
    np.testing.assert_allclose(encoder.encode_documents(TEXTS).vectors, documents(TEXTS, 9), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS).vectors, queries(TEXTS, 12), atol=1e-5)
    other = load_model_encoder(str(folder), kind="tct")
    assert other.fingerprint != encoder.fingerprint
    assert other.fingerprint.startswith("tct:")
    assert np.abs(other.encode_queries(["sun"]).vectors - encoder.encode_queries(["sun"]).vectors).max() > 0.01


def test_an_index_of_it_finds_texts_and_opens_again(folder, tmp_path):
    from lexmax import Document, Retriever, build_index

    documents = [Document(doc_id=str(i), text=text) for i, text in enumerate(TEXTS)]
    build_index(documents=documents, out=tmp_path / "idx", encoders={"tct": f"{folder},kind=tct"})
    encoder = load_model_encoder(str(folder), kind="tct")
    scores = encoder.encode_documents(TEXTS).vectors @ encoder.encode_queries(["rain"]).vectors[0]
    found = Retriever.open(tmp_path / "idx").search("rain", k=3, search="tct")
    assert [hit.doc_id for hit in found] == [str(i) for i in np.argsort(-scores)[:3]]


def test_the_form_is_never_guessed(folder):
    """Nothing in the folder tells it from a masked language model."""
    assert load_model_encoder(str(folder)).kind == "splade"
    with pytest.raises(TypeError, match="tct has no setting 'query_prompt'"):
        parse_encoder_spec(f"tct={folder},kind=tct,query_prompt=x")


def test_folders_of_another_form_are_refused(folder, tmp_path):
    raw(tmp_path / "m")
    write_json(tmp_path / "m" / "modules.json", [])
    with pytest.raises(RepresentationError, match=r"found modules\.json"):
        load_model_encoder(str(tmp_path / "m"), kind="tct")
    words = [*LETTERS, "[D]", "[Q]"]
    masked_lm(n_terms=len(words)).save_pretrained(tmp_path / "n")
    made = tokenizer(words)
    made.add_tokens(["[D]", "[Q]"])
    made.save_pretrained(tmp_path / "n")
    with pytest.raises(RepresentationError, match=r"found 2 and 2 tokens of '\[CLS\] \[D\]'"):
        load_model_encoder(str(tmp_path / "n"), kind="tct")
