"""What the folder of a Hypencoder holds (arXiv 2502.05364), read from its JSON files, without torch.

Accepted is the published layout, as in ``jfkback/hypencoder.6_layer``: config.json with the architecture HypencoderDualEncoder,
one file of weights for both sides (:func:`weight_shapes`), and a tokenizer. config.json holds no settings of the transformer
itself but names the network that training began with: those of BERT base are known here, and of another BERT they are
read from ``NAME/config.json`` inside the folder. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ....index.errors import RepresentationError
from ....index.representations.nets import check_sizes
from .files import check_keys, path_inside, read_json, whole_number
from .tokenizer_files import has_tokenizer

ARCHITECTURE = "HypencoderDualEncoder"
QUERY, PASSAGE = "query_encoder.", "passage_encoder."
TRANSFORMER = "transformer."
DOCUMENT_LENGTH, QUERY_LENGTH = 512, 64
OPTIONS = "sentence_bert_config.json"
"""Lengths, in folders that ``lexmax train`` writes."""
BERT_BASE: Mapping[str, Any] = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
BASES = {"google-bert/bert-base-uncased": BERT_BASE, "bert-base-uncased": BERT_BASE}
"""Networks that training began with -> their settings, as transformers names them."""
CONVERTER = {
    "activation_type": "relu", "do_layer_norm": True, "do_residual": True, "do_residual_on_last": False,
    "layer_norm_before_residual": True,
}  # fmt: skip
"""What queries' networks compute, and the only values that are known."""
HARMLESS = (
    "query_encoder_type", "passage_encoder_type", "loss_type", "loss_kwargs", "transformers_version", "torch_dtype", "dtype",
    "_name_or_path",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HypencoderLayout:
    """A Hypencoder.

    Attributes
    ----------
    folder, tokenizer : Path
        Where the weights are, and where the tokenizer is.
    transformer : mapping
        Settings of the BERT of both sides, as transformers names them.
    shared : bool
        One BERT encodes queries and documents.
    sizes : tuple of int
        Of queries' networks, as `QueryNets.sizes`.
    n_tokens : int
        Rows of the embedding table.
    document_length, query_length, length_limit : int
        Tokens a text is cut to by default, and at most, special tokens included.
    lowercase : bool
        Lower-case the text before the tokenizer does its own.
    """

    folder: Path
    tokenizer: Path
    transformer: Mapping[str, Any]
    shared: bool
    sizes: tuple[int, ...]
    n_tokens: int
    document_length: int
    query_length: int
    length_limit: int
    lowercase: bool


def is_hypencoder(root: Path) -> bool:
    """Whether config.json in a folder states a Hypencoder."""
    return ARCHITECTURE in (read_json(root / "config.json").get("architectures") or ())


def read_hypencoder_layout(root: Path) -> HypencoderLayout:
    """Read the Hypencoder in a folder.

    Raises
    ------
    RepresentationError
        When it is none, or computes something that is not known; the message names what was found.
    """
    path, config = root / "config.json", read_json(root / "config.json")
    if not is_hypencoder(root):
        found = f"architectures {config.get('architectures')}" if config else "no config.json"
        raise RepresentationError(f"{root}: found {found}; a Hypencoder's config.json states the architecture {ARCHITECTURE}")
    check_keys(path, config, ("architectures", "query_encoder_kwargs", "passage_encoder_kwargs", "shared_encoder", *HARMLESS))
    query, passage = _object(path, config, "query_encoder_kwargs"), _object(path, config, "passage_encoder_kwargs")
    base = query.get("model_name_or_path")
    known = ("model_name_or_path", "freeze_transformer")
    check_keys(path, query, (*known, "converter_kwargs", "embedding_representation", "base_encoder_output_dim"))
    check_keys(path, passage, (*known, "pooling_type"))
    _expect(path, passage, "model_name_or_path", base)
    _expect(path, passage, "pooling_type", "cls")
    transformer = _transformer(root, base)
    sizes, hidden = _sizes(path, _object(path, query, "converter_kwargs")), transformer["hidden_size"]
    _expect(path, query, "base_encoder_output_dim", hidden)
    if sizes[0] != hidden:
        raise RepresentationError(
            f"{path}: vector_dimensions begin with {sizes[0]}, and the states of {base} are {hidden} wide"
        )
    if not has_tokenizer(root):
        raise RepresentationError(f"{root}: no tokenizer: save that of {base} there (AutoTokenizer...save_pretrained)")
    limit = int(transformer["max_position_embeddings"])
    options = read_json(root / OPTIONS)
    check_keys(root / OPTIONS, options, ("max_seq_length", "query_length", "do_lower_case"))
    document_length = whole_number(root / OPTIONS, options, "max_seq_length")
    query_length = whole_number(root / OPTIONS, options, "query_length") or document_length
    return HypencoderLayout(
        folder=root,
        tokenizer=root,
        transformer=transformer,
        shared=bool(config.get("shared_encoder", False)),
        sizes=sizes,
        n_tokens=int(transformer["vocab_size"]),
        document_length=min(document_length or DOCUMENT_LENGTH, limit),
        query_length=min(query_length or QUERY_LENGTH, limit),
        length_limit=limit,
        lowercase=bool(options.get("do_lower_case", False)),
    )


def weight_shapes(sizes: Sequence[int], hidden: int) -> dict[str, tuple[int, ...]]:
    """Tensors of the hyper-head, by their names after ``query_encoder.``.

    Parameters
    ----------
    sizes : sequence of int
        As `QueryNets.sizes`; n hidden layers have n + 1 matrices, that of the output among them, and n biases.
    hidden : int
        Width of the transformer's states.
    """
    matrices, biases = matrix_shapes(sizes), [(1, width) for width in sizes[1:]]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, made in (("weight", matrices), ("bias", biases)):
        base = {"weight": "hyper_base_matrices", "bias": "hyper_base_vectors"}[name]
        for i, (rows, width) in enumerate(made):
            shapes[f"{base}.{i}"] = (1, rows, width) if name == "weight" else (rows, width)
            shapes[f"{name}_query_embeddings.{i}"] = (1, rows, width)
            shapes[f"{name}_hyper_projection.{i}.weight"] = (width, width)
            shapes[f"{name}_hyper_projection.{i}.bias"] = (width,)
    for i, (_, width) in enumerate([*matrices, *biases]):
        for name in ("key_projections", "value_projections"):
            shapes[f"{name}.{i}.weight"] = (width, hidden)
            shapes[f"{name}.{i}.bias"] = (width,)
    return shapes


def matrix_shapes(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(out, in) of the matrix of each hidden layer and of the output."""
    return [(after, before) for before, after in pairwise((*sizes, 1))]


def _sizes(path: Path, converter: Any) -> tuple[int, ...]:
    """Sizes of the networks; refuses settings by which they would compute something else."""
    check_keys(path, converter, (*CONVERTER, "vector_dimensions", "do_dropout", "dropout_prob"))  # dropout was for training
    for key, value in CONVERTER.items():
        _expect(path, converter, key, value)
    stated = converter.get("vector_dimensions")
    if not isinstance(stated, list) or not all(type(number) is int for number in stated) or stated[-1:] != [1]:
        raise RepresentationError(f"{path}: vector_dimensions are {stated!r}: expected whole numbers, the last of them 1")
    try:
        check_sizes(stated[:-1])
    except RepresentationError as error:
        raise RepresentationError(f"{path}: vector_dimensions: {error}") from error
    return tuple(stated[:-1])


def _transformer(root: Path, base: Any) -> Mapping[str, Any]:
    """Settings of the BERT that a name stands for."""
    if base in BASES:
        return BASES[base]
    if not isinstance(base, str) or not base:
        raise RepresentationError(f"{root / 'config.json'}: model_name_or_path is {base!r}: expected the name of a BERT")
    path = path_inside(root, root, base) / "config.json"
    settings = read_json(path)
    if not settings:
        raise RepresentationError(
            f"{root / 'config.json'}: training began with {base}, whose settings are not known here: put its config.json "
            f"at {path}"
        )
    if settings.get("model_type") != "bert":
        raise RepresentationError(f"{path}: found a network of type {settings.get('model_type')!r}, not 'bert'")
    for key in ("vocab_size", "hidden_size", "max_position_embeddings"):
        if whole_number(path, settings, key) is None:
            raise RepresentationError(f"{path}: no {key}")
    _expect(path, settings, "position_embedding_type", "absolute")
    return dict(settings)


def _object(path: Path, content: Any, key: str) -> Any:
    found = content.get(key)
    if not isinstance(found, dict):
        raise RepresentationError(f"{path}: {key} is {found!r}: expected an object")
    return found


def _expect(path: Path, content: Any, key: str, value: Any) -> None:
    """Refuse a setting that is stated, and is not ``value``."""
    found = content.get(key)
    if found is not None and found != value:
        raise RepresentationError(f"{path}: {key} is {found!r}: lexmax computes {value!r} alone")
