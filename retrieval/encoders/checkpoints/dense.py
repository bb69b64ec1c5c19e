"""What the folder of a dense single-vector model holds, read from its JSON files, without torch.

Accepted: what sentence-transformers saves of

    Transformer > Pooling (cls, mean or max) > [Dense (identity or tanh)]... > [Normalize]

with prompts and the similarity from config_sentence_transformers.json, and lengths from sentence_bert_config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ....index.errors import RepresentationError
from ..wordpieces import has_tokenizer
from .colbert_layout import Projection
from .files import class_name, length_limit, path_inside, read_json, stated_prompts, tokenizer_length

Pooling = Literal["cls", "mean", "max"]
POOLINGS: tuple[Pooling, ...] = ("cls", "mean", "max")
ACTIVATIONS = ("Identity", "Tanh")
SIMILARITIES = ("cosine", "dot")
# Before sentence-transformers 6, a flag for each pooling.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
SENTENCE = "sentence_embedding"
TRANSFORMER_OPTIONS: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "processing_kwargs": {},
}
ACCEPTED = "a dense model is a sentence-transformers folder of Transformer > Pooling (cls, mean, max) > Dense... > Normalize"


@dataclass(frozen=True, kw_only=True)
class DenseLayout:
    """A dense model.

    Attributes
    ----------
    folder, tokenizer : Path
        Where the network's weights and config.json are, and where the tokenizer is.
    n_tokens : int
        Rows of the embedding table.
    document_length, query_length, length_limit : int
        Tokens a text is cut to by default, and at most, special tokens included.
    lowercase : bool
        Lower-case the text before the tokenizer does its own.
    pooling : {"cls", "mean", "max"}
        Over the last hidden states of a text.
    projections : tuple of Projection
        Applied in this order to the pooled vector.
    dim : int
        Numbers of a vector.
    normalize : bool
        Whether vectors are brought to unit length: the model does it, or its similarity is the cosine.
    document_prompt, query_prompt : str
        Put before texts.
    """

    folder: Path
    tokenizer: Path
    n_tokens: int
    document_length: int
    query_length: int
    length_limit: int
    lowercase: bool
    pooling: Pooling
    projections: tuple[Projection, ...]
    dim: int
    normalize: bool
    document_prompt: str
    query_prompt: str


def read_dense_layout(root: Path) -> DenseLayout:
    """Read the dense model in a folder.

    Raises
    ------
    RepresentationError
        When it is none, or computes something that is not known; the message names what was found.
    """
    chain = [
        (class_name(module["type"]), path_inside(root, root, module["path"])) for module in read_json(root / "modules.json")
    ]
    names = [name for name, _ in chain]
    n_denses = names.count("Dense")
    if names not in (whole := ["Transformer", "Pooling", *["Dense"] * n_denses, "Normalize"], whole[:-1]):
        raise _refusal(root, f"the modules {' > '.join(names) or '(no modules.json)'}")
    folder = chain[0][1]
    config, options = read_json(folder / "config.json"), read_json(folder / "sentence_bert_config.json")
    _check_transformer(root, config, options)
    hidden = int(config.get("hidden_size") or config.get("dim") or 0)
    projections = tuple(_projection(root, path) for name, path in chain if name == "Dense")
    if "Normalize" in names:
        _check_normalize(root, chain[-1][1])
    card = read_json(root / "config_sentence_transformers.json")
    similarity = card.get("similarity_fn_name") or "cosine"  # sentence-transformers' own default
    if similarity not in SIMILARITIES:
        raise _refusal(root, f"a model compared by {similarity!r}, not {' or '.join(SIMILARITIES)}")
    document_prompt, query_prompt = stated_prompts(card)
    tokenizer, limit = folder if has_tokenizer(folder) else root, length_limit(config)
    longest = min(int(options.get("max_seq_length") or tokenizer_length(tokenizer) or limit), limit)
    return DenseLayout(
        folder=folder,
        tokenizer=tokenizer,
        n_tokens=int(config.get("vocab_size", 0)),
        document_length=min(int(options.get("document_length") or longest), limit),
        query_length=min(int(options.get("query_length") or longest), limit),
        length_limit=limit,
        lowercase=bool(options.get("do_lower_case", False)),
        pooling=_pooling(root, chain[1][1]),
        projections=projections,
        dim=_width(hidden, projections),
        normalize="Normalize" in names or similarity == "cosine",
        document_prompt=document_prompt,
        query_prompt=query_prompt,
    )


def _refusal(root: Path, found: str) -> RepresentationError:
    return RepresentationError(f"{root}: found {found}; {ACCEPTED}")


def _check_transformer(root: Path, config: Any, options: Any) -> None:
    if not config:
        raise _refusal(root, "no config.json of the Transformer")
    if config.get("is_encoder_decoder"):
        raise _refusal(root, f"an encoder-decoder network ({config.get('model_type')})")
    if (root / "adapter_config.json").is_file():
        raise _refusal(root, "a PEFT adapter, which must be merged into its base model first")
    for key, known in TRANSFORMER_OPTIONS.items():
        if options.get(key, known) != known:
            raise _refusal(root, f"a Transformer with {key} {options[key]!r}, not {known!r}")


def _pooling(root: Path, folder: Path) -> Pooling:
    config = read_json(folder / "config.json")
    stated = config.get("pooling_mode") or [name for flag, name in POOLING_FLAGS.items() if config.get(flag)] or "mean"
    modes = [stated] if isinstance(stated, str) else list(stated)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise _refusal(root, f"Pooling by {' and '.join(map(str, modes))}")
    if not config.get("include_prompt", True):
        raise _refusal(root, "Pooling that leaves out the prompt")
    return POOLINGS[POOLINGS.index(modes[0])]


def _projection(root: Path, folder: Path) -> Projection:
    config = read_json(folder / "config.json")
    read, written = config.get("module_input_name") or SENTENCE, config.get("module_output_name") or SENTENCE
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if (read, written) != (SENTENCE, SENTENCE) or config.get("use_residual"):
        raise _refusal(root, f"a Dense in {folder.name} with {config}")
    if not activation.startswith("torch.nn.") or class_name(activation) not in ACTIVATIONS:
        raise _refusal(
            root, f"a Dense in {folder.name} with activation_function {activation!r}, not {' or '.join(ACTIVATIONS)}"
        )
    try:
        read_width, written_width = int(config["in_features"]), int(config["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise RepresentationError(f"{folder / 'config.json'}: no in_features and out_features") from error
    return Projection(
        folder=folder,
        in_features=read_width,
        out_features=written_width,
        bias=bool(config.get("bias", True)),
        activation=class_name(activation),
    )


def _check_normalize(root: Path, folder: Path) -> None:
    config = read_json(folder / "config.json")
    names = {config.get(key) or SENTENCE for key in ("module_input_name", "module_output_name")}
    if names != {SENTENCE}:
        raise _refusal(root, f"a Normalize of {' and '.join(sorted(names))}, not of {SENTENCE}")


def _width(width: int, projections: tuple[Projection, ...]) -> int:
    """Numbers of a vector after all projections."""
    for projection in projections:
        if projection.in_features != width:
            raise RepresentationError(
                f"{projection.folder}: a Dense of {projection.in_features} inputs, after vectors of {width} numbers"
            )
        width = projection.out_features
    return width
