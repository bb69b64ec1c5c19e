"""Tiny random checkpoints in every public layout: 2 layers of BERT or DistilBERT over some 60 wordpieces.

Not a test: test modules get it through a fixture. Each function fills an empty folder and returns it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """
    the weather in ny now what ' s ? . , : is by on of a rain ##y sun ##ny new york current ##ly hot cold
    day night retrieval sparse search ##ing index ##es word ##s piece term weight model query document city
    wind snow warm ice sea river lake hill road car train bus walk run
"""
VOCABULARY = [*SPECIALS, *WORDS.split()]
TEXTS = [
    "what is the weather in ny now?",
    "currently new york is rainy.",
    "the the the weather",
    "sparse retrieval: searching indexes of wordpieces, term by term",
    "sun",
    "a cold night in the city, a hot day by the sea. snow on the hill, ice on the river, wind on the road.",
    "",
]
V5 = "sentence_transformers.sparse_encoder.models"


def tokenizer(vocabulary: list[str] = VOCABULARY) -> Any:
    from transformers import BertTokenizer

    made = BertTokenizer(vocab={token: number for number, token in enumerate(vocabulary)}, model_max_length=64)
    assert len(made) == len(vocabulary)  # transformers 5 ignores some ways to say it, and makes 5 tokens
    return made


def masked_lm(family: str = "bert", *, seed: int = 0, n_terms: int = len(VOCABULARY), tied: bool = True) -> Any:
    """A network whose random weights are large enough for logits of both signs, far from zero."""
    from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM

    torch.manual_seed(seed)
    common = {
        "vocab_size": n_terms,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
        "tie_word_embeddings": tied,
    }
    if family == "bert":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        network: Any = BertForMaskedLM(BertConfig(**sizes, **common))
        bias = network.cls.predictions.bias
    else:
        network = DistilBertForMaskedLM(DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=48, **common))
        bias = network.vocab_projector.bias
    bias.data.normal_()  # a fresh bias is zero, and would hide that it was dropped
    return network.eval()


def raw(folder: Path, family: str = "bert", **options: Any) -> Path:
    """A plain transformers checkpoint."""
    masked_lm(family, **options).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def with_idf(folder: Path, weights: dict[str, float], family: str = "bert") -> Path:
    """An OpenSearch checkpoint of before sentence-transformers: idf.json in the root."""
    raw(folder, family)
    write_json(folder / "idf.json", weights)
    return folder


def sentence_transformers_6(
    folder: Path, family: str = "bert", *, pooling: str = "max", activation: str = "relu", **card: Any
) -> Path:
    """What SparseEncoder.save of version 6 writes."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer

    source = raw(folder.with_name(folder.name + "-source"), family)
    transformer = Transformer(str(source), transformer_task="fill-mask")
    SparseEncoder(modules=[transformer, SpladePooling(pooling, activation)], **card).save(str(folder))
    return folder


def sentence_transformers_5(
    folder: Path, family: str = "bert", *, pooling: str = "max", activation: str = "relu", **bert: Any
) -> Path:
    """Version 5, as published checkpoints have it: raw files in the root and JSON beside."""
    raw(folder, family)
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": f"{V5}.MLMTransformer"},
            {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": f"{V5}.SpladePooling"},
        ],
    )
    write_pooling(folder / "1_SpladePooling", pooling, activation)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False, **bert})
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    return folder


def router_with_table(folder: Path, weights: torch.Tensor, *, activation: str = "log1p_relu") -> Path:
    """An inference-free SparseEncoder as version 6 saves it."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import (
        Router,
        SparseStaticEmbedding,
        SpladePooling,
        Transformer,
    )

    source = raw(folder.with_name(folder.name + "-source"), "distilbert")
    document = Transformer(str(source), transformer_task="fill-mask")
    router = Router.for_query_document(
        query_modules=[SparseStaticEmbedding(tokenizer(), weight=weights.clone())],
        document_modules=[document, SpladePooling("max", activation)],
    )
    SparseEncoder(modules=[router], similarity_fn_name="dot").save(str(folder))
    return folder


def router_with_towers(folder: Path) -> Path:
    """Two towers as published: the document network in the root, the query network in a folder of its own."""
    raw(folder, seed=1)
    raw(folder / "query_0_MLMTransformer", seed=2)
    for name, pooling in (("query_1_SpladePooling", "max"), ("document_1_SpladePooling", "max")):
        write_pooling(folder / name, pooling, "relu")
    write_router(
        folder,
        {
            "": f"{V5}.MLMTransformer.MLMTransformer",
            "query_0_MLMTransformer": f"{V5}.MLMTransformer.MLMTransformer",
            "query_1_SpladePooling": f"{V5}.SpladePooling.SpladePooling",
            "document_1_SpladePooling": f"{V5}.SpladePooling.SpladePooling",
        },
        query=["query_0_MLMTransformer", "query_1_SpladePooling"],
        document=["", "document_1_SpladePooling"],
    )
    return folder


def router_with_idf_folder(folder: Path, weights: dict[str, float]) -> Path:
    """The older inference-free layout: document network in the root, query_0_IDF pointing at idf.json."""
    with_idf(folder, weights)
    write_pooling(folder / "document_1_SpladePooling", "max", "log1p_relu")
    write_json(folder / "query_0_IDF" / "config.json", {"frozen": True, "path": "idf.json"})
    tokenizer().save_pretrained(folder / "query_0_IDF")
    write_router(
        folder,
        {
            "": f"{V5}.MLMTransformer",
            "query_0_IDF": f"{V5}.IDF",
            "document_1_SpladePooling": f"{V5}.SpladePooling",
        },
        query=["query_0_IDF"],
        document=["", "document_1_SpladePooling"],
    )
    return folder


def write_router(folder: Path, types: dict[str, str], *, query: list[str], document: list[str]) -> None:
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}
    write_json(folder / "modules.json", [module])
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    parameters = {"default_route": "document", "allow_empty_key": True}
    structure = {"query": query, "document": document}
    write_json(folder / "router_config.json", {"types": types, "structure": structure, "parameters": parameters})


def write_pooling(folder: Path, pooling: str, activation: str) -> None:
    config = {
        "pooling_strategy": pooling,
        "activation_function": activation,
        "word_embedding_dimension": None,
    }
    write_json(folder / "config.json", config)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
