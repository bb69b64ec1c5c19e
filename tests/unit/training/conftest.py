"""A tiny random BertForMaskedLM whose vocabulary has ColBERT's markers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

SPECIALS = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SENTENCE = "the a in of sun rain snow wind ice hot cold day night city road sea river lake hill car bus walk run . , ?"
WORDS = SENTENCE.split()
VOCABULARY = SPECIALS + WORDS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights large enough for logits of both signs, far from zero."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    network = BertForMaskedLM(
        BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=256, initializer_range=0.4, **sizes)
    )
    network.cls.predictions.bias.data.normal_()
    folder = tmp_path_factory.mktemp("checkpoint")
    network.save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(VOCABULARY)}, model_max_length=256)
    assert len(tokenizer) == len(VOCABULARY)
    tokenizer.save_pretrained(folder)
    return folder


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    """JSON lines, gzipped where the name says so."""
    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Twelve lists of three passages with two teachers."""
    records = []
    for i in range(12):
        query = WORDS[i]
        passages = [f"{query} in the {WORDS[i + 1]}", f"a {WORDS[i + 2]} day", f"the {WORDS[i + 3]} , cold night"]
        scores = {"dense": [0.9, 0.5, 0.1 * (i % 3)], "cross": [4.0, -2.0, 1.0 - i]}
        records.append({"query": query, "passages": passages, "scores": scores, "positive": 0})
    return write_lines(tmp_path / "lists.jsonl", records)
