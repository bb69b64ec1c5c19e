"""Tiny random Hypencoders in the published layout, and a plain torch oracle written from the paper's formulas.

Not a test: test modules import it. The published checkpoints name google-bert/bert-base-uncased; this one names a BERT whose
settings lie inside the folder.
"""

from pathlib import Path
from typing import Any

import torch
from models import VOCABULARY, tokenizer, write_json

HIDDEN = 32
SIZES = (HIDDEN, HIDDEN, HIDDEN)
BASE = "tiny/bert"
Tensors = dict[str, torch.Tensor]


def bert() -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(5)
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, initializer_range=0.4, **sizes)
    return BertModel(config).eval()


def head(sizes: tuple[int, ...] = SIZES) -> Tensors:
    """Tensors of the hyper-head by their published names, of sizes at which every one of them counts."""
    torch.manual_seed(6)
    shapes = [(out, width) for width, out in zip(sizes, (*sizes[1:], 1), strict=True)] + [(1, width) for width in sizes[1:]]
    n_matrices, tensors = len(sizes), {}
    for number, (out, width) in enumerate(shapes):
        kind, i = ("weight", number) if number < n_matrices else ("bias", number - n_matrices)
        base = f"hyper_base_matrices.{i}" if kind == "weight" else f"hyper_base_vectors.{i}"
        tensors[base] = torch.randn(*((1,) if kind == "weight" else ()), out, width) * 0.3
        tensors[f"{kind}_query_embeddings.{i}"] = torch.randn(1, out, width) * 0.5
        tensors[f"{kind}_hyper_projection.{i}.weight"] = torch.randn(width, width) * 0.1
        tensors[f"{kind}_hyper_projection.{i}.bias"] = torch.randn(width) * 0.1
        for name in ("key_projections", "value_projections"):
            tensors[f"{name}.{number}.weight"] = torch.randn(width, HIDDEN) * 0.2
            tensors[f"{name}.{number}.bias"] = torch.randn(width) * 0.2
    return {f"query_encoder.{name}": tensor for name, tensor in tensors.items()}


def config(sizes: tuple[int, ...] = SIZES, **changes: Any) -> dict[str, Any]:
    converter = {"activation_type": "relu", "vector_dimensions": [*sizes, 1]}
    return {
        "architectures": ["HypencoderDualEncoder"],
        "loss_kwargs": [{}],
        "loss_type": ["margin_mse"],
        "passage_encoder_kwargs": {"model_name_or_path": BASE, "pooling_type": "cls"},
        "query_encoder_kwargs": {"converter_kwargs": converter, "model_name_or_path": BASE},
        "shared_encoder": True,
        "torch_dtype": "float32",
        "transformers_version": "4.40.0",
        **changes,
    }


def weights(sizes: tuple[int, ...] = SIZES) -> Tensors:
    """All tensors, with the copy of the BERT that pytorch_model.bin has."""
    towers = bert().state_dict()
    return {
        **{f"query_encoder.transformer.{name}": tensor.clone() for name, tensor in towers.items()},
        **head(sizes),
        **{f"passage_encoder.transformer.{name}": tensor.clone() for name, tensor in towers.items()},
    }


def hypencoder(
    folder: Path, sizes: tuple[int, ...] = SIZES, *, pickled: bool = True, tensors: Tensors | None = None, **changes: Any
) -> Path:
    """A folder as published, with pytorch_model.bin or model.safetensors; ``changes`` are those of config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config(sizes, **changes))
    bert().config.save_pretrained(folder / BASE)
    tokenizer().save_pretrained(folder)
    held = weights(sizes) if tensors is None else tensors
    if pickled:
        torch.save(held, folder / "pytorch_model.bin")
    else:
        save_file(held, folder / "model.safetensors")
    return folder


def expected_vectors(texts: list[str], length: int = 64) -> torch.Tensor:
    """[CLS] states of texts by transformers alone."""
    tokens = tokenizer()(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        return bert()(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state[:, 0]


def expected_nets(texts: list[str], sizes: tuple[int, ...] = SIZES, length: int = 64) -> list[list[torch.Tensor]]:
    """Matrices (in, out) of each text's network, that of the output last, then biases (out,): padded, and masked."""
    tokens = tokenizer()(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    held = {name.removeprefix("query_encoder."): tensor for name, tensor in head(sizes).items()}
    n = len(sizes)
    with torch.no_grad():
        states = bert()(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        made = []
        for number in range(2 * n - 1):
            kind, i = ("weight", number) if number < n else ("bias", number - n)
            rows = held[f"{kind}_query_embeddings.{i}"][0]
            scale = (sizes[i + 1] if i + 1 < n else 1) ** 0.5 if kind == "weight" else 1.0
            keys = states @ held[f"key_projections.{number}.weight"].T + held[f"key_projections.{number}.bias"]
            values = states @ held[f"value_projections.{number}.weight"].T + held[f"value_projections.{number}.bias"]
            logits = torch.einsum("oi,bti->bot", rows, keys) / scale
            logits = logits.masked_fill(tokens["attention_mask"][:, None] == 0, -torch.inf)
            context = torch.relu(torch.einsum("bot,bti->boi", logits.softmax(-1), values))
            mean, variance = context.mean(-1, keepdim=True), context.var(-1, unbiased=False, keepdim=True)
            normal = (context - mean) / torch.sqrt(variance + 1e-5)
            matrix = normal @ held[f"{kind}_hyper_projection.{i}.weight"].T + held[f"{kind}_hyper_projection.{i}.bias"]
            matrix = matrix + held[f"hyper_base_matrices.{i}" if kind == "weight" else f"hyper_base_vectors.{i}"]
            made.append(matrix.transpose(1, 2) if kind == "weight" else matrix[:, 0])
    return [[part[b] for part in made] for b in range(len(texts))]


def expected_scores(net: list[torch.Tensor], vectors: torch.Tensor) -> torch.Tensor:
    """Scores (n,) of document vectors (n, dim) by a network of `expected_nets`."""
    n_hidden = len(net) // 2
    x = vectors
    for j in range(n_hidden):
        y = torch.relu(x @ net[j] + net[n_hidden + 1 + j])
        y = (y - y.mean(-1, keepdim=True)) / torch.sqrt(y.var(-1, unbiased=False, keepdim=True) + 1e-5)
        x = y + x if j < n_hidden - 1 else y
    return (x @ net[n_hidden])[:, 0]
