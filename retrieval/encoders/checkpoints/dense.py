"""What the folder of a dense single-vector model holds, read from its JSON files, without torch.

Accepted: what sentence-transformers saves of

    Transformer > Pooling (cls, mean or max) > [Dense (identity or tanh)]... > [Normalize]

with prompts and the similarity from config_sentence_transformers.json, and lengths from sentence_bert_config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ....index.errors import RepresentationError
from .colbert_layout import Projection
from .files import check_keys, modules, read_card, read_json, stated_prompts, tokenizer_length, whole_number
from .transformer import read_transformer

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
POOLING_KEYS = ("pooling_mode", "include_prompt", "embedding_dimension", "word_embedding_dimension", *POOLING_FLAGS)
DENSE_KEYS = (
    "in_features", "out_features", "bias", "activation_function", "module_input_name", "module_output_name", "use_residual",
)  # fmt: skip
NORMALIZE_KEYS = ("module_input_name", "module_output_name")
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
    truncate_dim : int or None
        Leading numbers that a vector keeps.
    normalize, normalize_last : bool
        Whether vectors are brought to unit length before they are cut, by the model, and after it, for its similarity is the
        cosine.
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
    truncate_dim: int | None
    normalize: bool
    normalize_last: bool
    document_prompt: str
    query_prompt: str


def read_dense_layout(root: Path) -> DenseLayout:
    """Read the dense model in a folder.

    Raises
    ------
    RepresentationError
        When it is none, or computes something that is not known; the message names what was found.
    """
    chain = modules(root)
    names = [name for name, _ in chain]
    n_denses = names.count("Dense")
    if names not in (whole := ["Transformer", "Pooling", *["Dense"] * n_denses, "Normalize"], whole[:-1]):
        raise _refusal(root, f"the modules {' > '.join(names) or '(no modules.json)'}")
    files = read_transformer(root, chain[0][1], task="feature-extraction")
    if files.options.get("query_expansion"):
        raise _refusal(root, f"a dense model with query_expansion {files.options['query_expansion']}")
    projections = tuple(_projection(root, path) for name, path in chain if name == "Dense")
    if "Normalize" in names:
        _check_normalize(root, chain[-1][1])
    card = read_card(root, "truncate_dim")
    similarity = card.get("similarity_fn_name") or "cosine"  # sentence-transformers' own default
    if similarity not in SIMILARITIES:
        raise _refusal(root, f"a model compared by similarity_fn_name {similarity!r}, not {' or '.join(SIMILARITIES)}")
    document_prompt, query_prompt = stated_prompts(card)
    stated, width = tokenizer_length(files.tokenizer), _width(files.hidden, projections)
    truncate_dim = whole_number(root / "config_sentence_transformers.json", card, "truncate_dim")
    return DenseLayout(
        folder=files.folder,
        tokenizer=files.tokenizer,
        n_tokens=files.n_tokens,
        document_length=files.length("document", stated),
        query_length=files.length("query", stated),
        length_limit=files.limit,
        lowercase=files.lowercase,
        pooling=_pooling(root, chain[1][1]),
        projections=projections,
        dim=min(width, truncate_dim or width),
        truncate_dim=truncate_dim,
        normalize="Normalize" in names,
        normalize_last=similarity == "cosine",
        document_prompt=document_prompt,
        query_prompt=query_prompt,
    )


def _refusal(root: Path, found: str) -> RepresentationError:
    return RepresentationError(f"{root}: found {found}; {ACCEPTED}")


def _pooling(root: Path, folder: Path) -> Pooling:
    config = read_json(folder / "config.json")
    check_keys(folder / "config.json", config, POOLING_KEYS)
    stated = config.get("pooling_mode") or [name for flag, name in POOLING_FLAGS.items() if config.get(flag)] or "mean"
    modes = [stated] if isinstance(stated, str) else list(stated)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise _refusal(root, f"Pooling by {' and '.join(map(str, modes))}")
    if not config.get("include_prompt", True):
        raise _refusal(root, "Pooling that leaves out the prompt")
    return POOLINGS[POOLINGS.index(modes[0])]


def _projection(root: Path, folder: Path) -> Projection:
    config = read_json(folder / "config.json")
    check_keys(folder / "config.json", config, DENSE_KEYS)
    read, written = config.get("module_input_name") or SENTENCE, config.get("module_output_name") or SENTENCE
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if (read, written) != (SENTENCE, SENTENCE) or config.get("use_residual"):
        raise _refusal(root, f"a Dense in {folder.name} with {config}")
    if not activation.startswith("torch.nn.") or activation.rpartition(".")[2] not in ACTIVATIONS:
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
        activation=activation.rpartition(".")[2],
    )


def _check_normalize(root: Path, folder: Path) -> None:
    config = read_json(folder / "config.json")
    check_keys(folder / "config.json", config, NORMALIZE_KEYS)
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
