"""8-bit networks are held to float32: models that come with lexmax here, others when they are loaded."""

import logging
import shutil
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from lexmax import load_encoder
from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.networks.integer_bert import IntegerBert, agreement
from lexmax.retrieval.encoders.networks.loading import load_network
from lexmax.retrieval.kernels.bert import ROW_BITS
from lexmax.retrieval.models import shipped_folder, shipped_names

TEXTS = ["what is the weather in new york now?", "sun", "a cold night in the city, a hot day by the sea"]


def checkpoint(folder: Path, *, spread: float, n_layers: int = 2, hidden: int = 64, spoilt_decoder: bool = False) -> Path:
    torch.manual_seed(0)
    network = BertForMaskedLM(
        BertConfig(
            vocab_size=len(models.VOCABULARY), hidden_size=hidden, num_hidden_layers=n_layers, num_attention_heads=2,
            intermediate_size=2 * hidden, max_position_embeddings=64, initializer_range=spread, tie_word_embeddings=False,
        )
    )  # fmt: skip
    if spoilt_decoder:  # one input of each term so large that the others round to nothing, and a transform that hides it
        network.cls.predictions.decoder.weight.data[:, 0] = 1e4
        network.cls.predictions.transform.LayerNorm.weight.data[0] = 0
    network.save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", sorted({*shipped_names()} - {"lexmax-inference-free", "lexmax-sae"}))
def test_models_that_come_with_lexmax_agree_in_integers(name):
    """Their start is not held up by it. The two that are left out have the networks of others."""
    network = load_network(shipped_folder(name), "AutoModel", may_lack=["pooler."])
    assert agreement(network, IntegerBert(network, Path("m"))) > (0.99 if ROW_BITS == 8 else 0.97)


def test_a_network_that_agrees_says_so(tmp_path, caplog):
    folder = checkpoint(tmp_path / "m", spread=0.1)
    with caplog.at_level(logging.INFO, logger="lexmax"):
        load_encoder(model=str(folder), dtype="int8")
    said = [record.getMessage() for record in caplog.records if "8-bit integers have a cosine" in record.getMessage()]
    assert [message.split(": ")[1].split(" in ")[0] for message in said] == ["states of tokens", "weights of terms"]


def as_kind(folder: Path, kind: str, colbert_models) -> None:
    """Add the files that make a plain checkpoint one of another kind."""
    second = {
        "colbert": ("1_Dense", "pylate.models.Dense.Dense"),
        "dense": ("1_Pooling", "sentence_transformers.models.Pooling"),
    }
    types = [("", "sentence_transformers.models.Transformer"), second[kind]]
    models.write_json(folder / "modules.json", [{"path": path, "type": name} for path, name in types])
    if kind == "colbert":
        colbert_models.write_dense(folder / "1_Dense", 128, 16)
        card = {"model_type": "ColBERT", "query_prefix": "", "document_prefix": ""}
        models.write_json(folder / "config_sentence_transformers.json", card)


@pytest.mark.parametrize("kind", ["splade", "colbert", "dense"])
def test_a_network_that_8_bits_do_not_suit_is_refused(kind, tmp_path, colbert_models):
    folder = checkpoint(tmp_path / "m", spread=1.0, n_layers=8, hidden=128)
    if kind != "splade":
        as_kind(folder, kind, colbert_models)

    def encode(dtype: str) -> None:
        load_encoder(model=str(folder), dtype=dtype).encode_queries(["sun"])

    encode("float32")
    with pytest.raises(RepresentationError, match=r"states of tokens have a cosine of 0\.\d+ .* less than 0\.95: use dtype"):
        encode("int8")


def test_a_network_that_looks_back_alone_is_no_bert_encoder(tmp_path, colbert_models):
    """A decoder: its trunk is not shared with an encoder of equal weights either."""
    folder = checkpoint(tmp_path / "m", spread=0.1)
    as_kind(folder, "dense", colbert_models)
    both = load_encoder("dense", model=str(folder)).encode_queries(TEXTS).vectors
    colbert_models.edit(folder / "config.json", is_decoder=True)
    assert np.abs(load_encoder("dense", model=str(folder)).encode_queries(TEXTS).vectors - both).max() > 1e-3
    with pytest.raises(RepresentationError, match="is_decoder is True: use float32"):
        load_encoder("dense", model=str(folder), dtype="int8").encode_queries(TEXTS)


def test_a_vocabulary_layer_that_8_bits_do_not_suit_is_refused(tmp_path):
    folder = checkpoint(tmp_path / "m", spread=0.1, spoilt_decoder=True)
    with pytest.raises(RepresentationError, match="weights of terms have a cosine of"):
        load_encoder(model=str(folder), dtype="int8")
    load_encoder(model=str(folder), dtype="float32").encode_queries(["sun"])


@pytest.mark.parametrize("attend", [False, True])
def test_expansion_with_a_mask_token_that_is_the_padding_token(colbert_models, tmp_path, attend):
    """Every expansion token has the vector that float32 gives it, though its id is the padding id."""
    source = colbert_models.stanford(tmp_path / "small", attend_to_mask_tokens=attend)
    folder = shutil.copytree(source, tmp_path / "model")
    torch.manual_seed(3)
    network = BertModel(
        BertConfig(
            vocab_size=len(colbert_models.VOCABULARY), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=96, max_position_embeddings=64, initializer_range=0.1,
            pad_token_id=colbert_models.VOCABULARY.index("[MASK]"), architectures=["HF_ColBERT"],
        )
    )  # fmt: skip
    from safetensors.torch import save_file

    tensors = {f"bert.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file({**tensors, "linear.weight": torch.randn(16, 64)}, folder / "model.safetensors")
    network.config.save_pretrained(folder)
    colbert_models.edit(folder / "config.json", architectures=["HF_ColBERT"])
    exact, rounded = (load_encoder(model=str(folder), dtype=dtype) for dtype in ("float32", "int8"))
    for text in TEXTS:
        wanted, found = exact.encode_queries([text]).row(0), rounded.encode_queries([text, "sun"]).row(0)
        assert len(wanted) == len(found) == 12
        assert ((wanted * found).sum(1) > 0.995).all()
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
