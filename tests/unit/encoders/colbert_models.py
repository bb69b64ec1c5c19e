"""Tiny random ColBERT checkpoints in the layouts of Stanford, PyLate and sentence-transformers 6.

Not a test: test modules get it through a fixture. Each function fills an empty folder and returns it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models import VOCABULARY as WORDS
from models import tokenizer, write_json
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, BertPreTrainedModel

HIDDEN, DIM = 32, 16
VOCABULARY = [*WORDS, *sorted(set(string.punctuation) - set(WORDS)), "[unused0]", "[unused1]"]
TEXTS = [
    "what is the weather in ny now?",
    "currently, new york is: rainy...",
    "the the the weather",
    "",
    "?! ...",
    "sun",
    "a cold night in the city, a hot day by the sea. snow on the hill, ice on the river, wind on the road.",
]
PYLATE = "pylate.models.Dense.Dense"
TRANSFORMER = "sentence_transformers.models.Transformer"
IDENTITY = "torch.nn.modules.linear.Identity"


class HF_ColBERT(BertPreTrainedModel):  # noqa: N801
    """What Stanford saves, under this name: BERT with its pooler, and a projection at the root."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.linear = torch.nn.Linear(config.hidden_size, DIM, bias=False)
        self.post_init()


def config(n_tokens: int = len(VOCABULARY)) -> BertConfig:
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    return BertConfig(vocab_size=n_tokens, max_position_embeddings=64, initializer_range=0.4, **sizes)


def stanford(folder: Path, **metadata: Any) -> Path:
    torch.manual_seed(0)
    HF_ColBERT(config()).save_pretrained(folder)
    tokenizer(VOCABULARY).save_pretrained(folder)
    stated = {"dim": DIM, "query_maxlen": 12, "doc_maxlen": 20, "mask_punctuation": True, "attend_to_mask_tokens": False,
              "query_token_id": "[unused0]", "doc_token_id": "[unused1]"}  # fmt: skip
    write_json(folder / "artifact.metadata", {**stated, **metadata})
    return folder


def pylate(folder: Path, denses: Sequence[dict[str, Any]] = ({},), *, prefixes: bool = True, **card: Any) -> Path:
    """PyLate up to 3: Transformer and Dense modules, with the prefixes among the tokenizer's added tokens."""
    vocabulary = tokenizer(VOCABULARY)
    if prefixes:
        vocabulary.add_tokens(["[Q] ", "[D] "])
    torch.manual_seed(1)
    BertModel(config(len(vocabulary))).save_pretrained(folder)
    vocabulary.save_pretrained(folder)
    modules = [{"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}]
    for number, options in enumerate(denses, start=1):
        write_dense(folder / f"{number}_Dense", **options)
        modules.append({"idx": number, "name": str(number), "path": f"{number}_Dense", "type": PYLATE})
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 19, "do_lower_case": False})
    stated = {"model_type": "ColBERT", "similarity_fn_name": "MaxSim", "prompts": {}, "query_prefix": "[Q] ",
              "document_prefix": "[D] ", "query_length": 12, "document_length": 20, "attend_to_expansion_tokens": False,
              "skiplist_words": list(string.punctuation), "do_query_expansion": True}  # fmt: skip
    write_json(folder / "config_sentence_transformers.json", {**stated, **card})
    return folder


def write_dense(
    folder: Path, width: int = HIDDEN, out: int = DIM, *, bias: bool = False, activation: str = IDENTITY,
    residual: bool = False,
) -> None:  # fmt: skip
    stated = {"in_features": width, "out_features": out, "bias": bias, "activation_function": activation}
    write_json(folder / "config.json", {**stated, "use_residual": residual})
    tensors = {"linear.weight": torch.randn(out, width)}
    if bias:
        tensors["linear.bias"] = torch.randn(out)
    if residual and width != out:
        tensors["residual.weight"] = torch.randn(out, width)
    save_file(tensors, folder / "model.safetensors")


def sentence_transformers(
    folder: Path, *, skiplist: Sequence[str] = string.punctuation, tasks: Sequence[str] = ("document",),
    prompts: dict[str, str] | None = None, **transformer: Any,
) -> Path:  # fmt: skip
    """What MultiVectorEncoder.save of version 6 writes, two Dense modules deep."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    source = folder.with_name(folder.name + "-source")
    torch.manual_seed(2)
    BertModel(config()).save_pretrained(source)
    vocabulary = tokenizer(VOCABULARY)
    vocabulary.add_special_tokens({"additional_special_tokens": ["[unused0]", "[unused1]"]})
    vocabulary.save_pretrained(source)
    over_tokens = {"module_input_name": "token_embeddings"}
    modules = [
        Transformer(str(source), **{"document_length": 20, **transformer}),
        Dense(HIDDEN, 24, activation_function=torch.nn.GELU(), use_residual=True, **over_tokens),
        Dense(24, DIM, bias=False, activation_function=torch.nn.Identity(), **over_tokens),
        MultiVectorMask(list(skiplist), skiplist_tasks=list(tasks)),
        Normalize(**over_tokens),
    ]
    prompts = {"query": "[unused0] ", "document": "[unused1] "} if prompts is None else prompts
    MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu").save(str(folder))
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    write_json(path, {key: value for key, value in content.items() if value is not None})
