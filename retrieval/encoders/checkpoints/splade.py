"""What a checkpoint folder holds: towers, token table, pooling; read from its JSON files, without torch.

Accepted::

    *ForMaskedLM                                     SPLADE: max, log1p(relu)
    [Transformer | MLMTransformer, SpladePooling]    SPLADE of sentence-transformers 6 | 5
    either of them with idf.json                     inference-free
    Router | Asym  document: as above
                   query: as above                   SPLADE with two towers
                   query: SparseStaticEmbedding|IDF  inference-free

Everything else is refused by name: a ColBERT or a dense model read as SPLADE still "works", and ranks badly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ....index.errors import RepresentationError
from .colbert import FAMILIES, colbert_family
from .files import (
    check_keys,
    class_name,
    modules,
    path_inside,
    read_card,
    read_json,
    stated_prompts,
    tokenizer_length,
    whole_number,
)  # fmt: skip
from .tokenizer_files import has_tokenizer
from .transformer import read_transformer

Pooling = Literal["max", "sum"]
Activation = Literal["relu", "log1p_relu"]
POOLINGS: tuple[Pooling, ...] = ("max", "sum")
ACTIVATIONS: tuple[Activation, ...] = ("relu", "log1p_relu")
SIMILARITIES = ("dot", "cosine")
TRANSFORMERS = ("Transformer", "MLMTransformer")
POOLING_KEYS = ("pooling_strategy", "activation_function", "word_embedding_dimension", "embedding_dimension", "chunk_size")
Module = tuple[str, Path]  # class name, folder

DEFAULT_MAX_LENGTH = 256  # SPLADE's training length
ACCEPTED = (
    "lexmax takes a *ForMaskedLM folder, with or without idf.json, or a sentence-transformers SparseEncoder "
    "(fill-mask Transformer + SpladePooling, or a Router of those and SparseStaticEmbedding), or a ColBERT"
)


@dataclass(frozen=True, kw_only=True)
class TowerFiles:
    """A masked language model and how its logits become term weights.

    Attributes
    ----------
    folder, tokenizer : Path
        Where the weights and config.json are, and where the tokenizer is.
    pooling : {"max", "sum"}
        Over the positions of the text.
    activation : {"relu", "log1p_relu"}
        log1p(relu(x)), or log1p(log1p(relu(x))).
    n_terms : int
        Output dimensions.
    max_length, length_limit : int
        Tokens a text is cut to by default, and at most.
    lowercase : bool
        Lower-case the text before the tokenizer does its own.
    """

    folder: Path
    tokenizer: Path
    pooling: Pooling = "max"
    activation: Activation = "relu"
    n_terms: int
    max_length: int
    length_limit: int
    lowercase: bool = False

    def pooled_as(self, pooling: Pooling | None, activation: Activation | None) -> TowerFiles:
        """Return the same files with another pooling or activation; None keeps the checkpoint's."""
        return replace(self, pooling=pooling or self.pooling, activation=activation or self.activation)


@dataclass(frozen=True, kw_only=True)
class TableFiles:
    """A weight for each token: an idf.json, or safetensors with a tensor ``weight`` (n_terms,)."""

    weights: Path
    tokenizer: Path
    max_length: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A checkpoint.

    Attributes
    ----------
    document, query : TowerFiles or TableFiles
        What encodes each side.
    document_prompt, query_prompt : str
        Put before texts.
    top_k : int or None
        Weights that a vector keeps.
    normalize : bool
        Whether vectors are brought to unit length, because the model's similarity is the cosine.
    """

    document: TowerFiles
    query: TowerFiles | TableFiles
    document_prompt: str = ""
    query_prompt: str = ""
    top_k: int | None = None
    normalize: bool = False


def read_layout(root: Path) -> Layout:
    """Recognise the checkpoint in a folder.

    Raises
    ------
    RepresentationError
        When it is not recognised, or belongs to another family; the message names what was found.
    """
    config, listed = read_json(root / "config.json"), modules(root)
    chains = {side: _chain(root, listed, side) for side in ("document", "query")}
    _refuse_other_families(root, config, [name for chain in chains.values() for name, _ in chain])
    card = read_card(root, "max_active_dims")
    similarity = card.get("similarity_fn_name") or "dot"
    if similarity not in SIMILARITIES:
        raise _refusal(root, f"a SparseEncoder compared by similarity_fn_name {similarity!r}, not {' or '.join(SIMILARITIES)}")
    document, query = (_side(root, side, chain, plain=not listed) for side, chain in chains.items())
    if isinstance(document, TableFiles):
        raise _refusal(root, "a static token table on the document side")
    if isinstance(query, TowerFiles) and query.folder == document.folder and (root / "idf.json").is_file():
        query = TableFiles(weights=root / "idf.json", tokenizer=document.tokenizer, max_length=document.max_length)
    document_prompt, query_prompt = stated_prompts(card)
    return Layout(
        document=document,
        query=query,
        document_prompt=document_prompt,
        query_prompt=query_prompt,
        top_k=whole_number(root / "config_sentence_transformers.json", card, "max_active_dims"),
        normalize=similarity == "cosine",
    )


def _refusal(root: Path, found: str) -> RepresentationError:
    return RepresentationError(f"{root}: found {found}; {ACCEPTED}")


def _refuse_other_families(root: Path, config: Any, classes: list[str]) -> None:
    """Name families that share our file formats."""
    architectures = config.get("architectures") or []
    if "HypencoderDualEncoder" in architectures:
        raise _refusal(root, "a Hypencoder")
    family = colbert_family(root)
    if family:
        raise _refusal(root, f"{FAMILIES[family]}, which is kind='colbert'")
    if "Pooling" in classes and "SparseAutoEncoder" not in classes:
        raise _refusal(root, "a dense model (Pooling), which is kind='dense'")
    if (root / "adapter_config.json").is_file():
        raise _refusal(root, "a PEFT adapter, which must be merged into its base model first")


def _chain(root: Path, listed: list[Module], side: str) -> list[Module]:
    """Modules that a text of this side passes through; a Router or Asym is replaced by the side's route."""
    chain: list[Module] = []
    for name, folder in listed or [("Transformer", root)]:
        chain += _route(root, folder, name, side) if name in ("Router", "Asym") else [(name, folder)]
    return chain


def _route(root: Path, folder: Path, name: str, side: str) -> list[Module]:
    path = folder / "router_config.json"
    router = read_json(path if path.is_file() else folder / "config.json")
    structure, types, parameters = (router.get(key) or {} for key in ("structure", "types", "parameters"))
    check_keys(path, router, ("structure", "types", "parameters"))
    check_keys(path, parameters, ("default_route", "allow_empty_key"))  # which do nothing to a text of a known side
    if side not in structure:
        raise _refusal(root, f"a {name} with routes {sorted(structure)}, not 'query' and 'document'")
    return [(class_name(root, types[i]), path_inside(root, folder, i)) for i in structure[side]]


def _side(root: Path, side: str, chain: list[Module], *, plain: bool) -> TowerFiles | TableFiles:
    match chain:
        case [("SparseStaticEmbedding" | "IDF", folder)]:
            return _table_files(root, folder)
        case [(name, folder), ("SpladePooling", pooling)] if name in TRANSFORMERS:
            return _tower_files(root, side, folder, pooling)
        case [("Transformer", folder)] if plain:
            return _tower_files(root, side, folder, None)
    raise _refusal(root, f"the modules {' > '.join(name for name, _ in chain) or '(none)'}")


def _tower_files(root: Path, side: str, folder: Path, pooling_folder: Path | None) -> TowerFiles:
    files = read_transformer(root, folder, task="fill-mask")
    architectures = files.config.get("architectures") or []
    if not any(name.endswith("ForMaskedLM") for name in architectures):
        raise _refusal(root, f"architectures {architectures}")
    if files.options.get("query_expansion"):
        raise _refusal(root, f"a SparseEncoder with query_expansion {files.options['query_expansion']}")
    stated = None if pooling_folder is None else tokenizer_length(files.tokenizer)
    pooling, activation = (POOLINGS[0], ACTIVATIONS[0]) if pooling_folder is None else _pooling(pooling_folder)
    return TowerFiles(
        folder=folder,
        tokenizer=files.tokenizer,
        pooling=pooling,
        activation=activation,
        n_terms=files.n_tokens,
        max_length=files.length(side, stated or DEFAULT_MAX_LENGTH),
        length_limit=files.limit,
        lowercase=files.lowercase,
    )


def _pooling(folder: Path) -> tuple[Pooling, Activation]:
    config = read_json(folder / "config.json")
    check_keys(folder / "config.json", config, POOLING_KEYS)
    pooling, activation = config.get("pooling_strategy"), config.get("activation_function")
    if pooling not in POOLINGS or activation not in ACTIVATIONS:
        raise RepresentationError(
            f"{folder / 'config.json'}: pooling_strategy {pooling!r} and activation_function {activation!r}; "
            "expected max or sum, and relu or log1p_relu; the vectors depend on them, so neither is guessed"
        )
    return pooling, activation


def _table_files(root: Path, folder: Path) -> TableFiles:
    config = read_json(folder / "config.json")
    if folder != root:
        check_keys(folder / "config.json", config, ("path", "frozen"))
    stated = config.get("path")
    candidates = [folder / "model.safetensors"]
    if stated and str(stated).endswith(".json"):
        candidates = [path_inside(root, folder, stated), path_inside(root, root, stated), root / "idf.json"]
    weights = next((path for path in candidates if path.is_file()), None)
    if weights is None:
        raise RepresentationError(
            f"{folder}: no token weights ({' or '.join(str(path) for path in candidates)}); "
            "pickled tables are not read: save them as safetensors"
        )
    tokenizer = next((place for place in (folder, root) if has_tokenizer(place)), folder)
    max_length = tokenizer_length(tokenizer) or DEFAULT_MAX_LENGTH
    return TableFiles(weights=weights, tokenizer=tokenizer, max_length=max_length)
