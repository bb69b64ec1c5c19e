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
from ..wordpieces import has_tokenizer
from .colbert import FAMILIES, colbert_family
from .files import class_name, length_limit, path_inside, read_json, stated_prompts, tokenizer_length

Pooling = Literal["max", "sum"]
Activation = Literal["relu", "log1p_relu"]
POOLINGS: tuple[Pooling, ...] = ("max", "sum")
ACTIVATIONS: tuple[Activation, ...] = ("relu", "log1p_relu")
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
    """What encodes each side of a checkpoint, the prompts to put before texts, and its own top-k."""

    document: TowerFiles
    query: TowerFiles | TableFiles
    document_prompt: str = ""
    query_prompt: str = ""
    top_k: int | None = None


def read_layout(root: Path) -> Layout:
    """Recognise the checkpoint in a folder.

    Raises
    ------
    RepresentationError
        When it is not recognised, or belongs to another family; the message names what was found.
    """
    config, card = read_json(root / "config.json"), read_json(root / "config_sentence_transformers.json")
    modules = read_json(root / "modules.json")
    chains = {side: _chain(root, modules, side) for side in ("document", "query")}
    _refuse_other_families(root, config, [name for chain in chains.values() for name, _ in chain])
    document, query = (_side(root, chain, sentence_transformers=bool(modules)) for chain in chains.values())
    if isinstance(document, TableFiles):
        raise _refusal(root, "a static token table on the document side")
    if query == document and (root / "idf.json").is_file():
        query = TableFiles(weights=root / "idf.json", tokenizer=document.tokenizer, max_length=document.max_length)
    document_prompt, query_prompt = stated_prompts(card)
    return Layout(
        document=document,
        query=query,
        document_prompt=document_prompt,
        query_prompt=query_prompt,
        top_k=card.get("max_active_dims"),
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
        raise _refusal(
            root, "a dense single-vector model (Pooling), which is kind='dense' and a baseline of lexmax eval --suite"
        )
    if (root / "adapter_config.json").is_file():
        raise _refusal(root, "a PEFT adapter, which must be merged into its base model first")


def _chain(root: Path, modules: Any, side: str) -> list[Module]:
    """Modules that a text of this side passes through; a Router or Asym is replaced by the side's route."""
    if not modules:
        return [("Transformer", root)]
    chain: list[Module] = []
    for module in modules:
        folder, name = path_inside(root, root, module["path"]), class_name(module["type"])
        if name not in ("Router", "Asym"):
            chain.append((name, folder))
            continue
        router = read_json(folder / "router_config.json") or read_json(folder / "config.json")
        structure = router.get("structure") or {}
        if side not in structure:
            raise _refusal(root, f"a {name} with routes {sorted(structure)}, not 'query' and 'document'")
        chain += [(class_name(router["types"][i]), path_inside(root, folder, i)) for i in structure[side]]
    return chain


def _side(root: Path, chain: list[Module], *, sentence_transformers: bool) -> TowerFiles | TableFiles:
    match chain:
        case [("SparseStaticEmbedding" | "IDF", folder)]:
            return _table_files(root, folder)
        case [("Transformer" | "MLMTransformer", folder), ("SpladePooling", pooling)]:
            return _tower_files(root, folder, pooling)
        case [("Transformer", folder)] if not sentence_transformers:
            return _tower_files(root, folder, None)
    raise _refusal(root, f"the modules {' > '.join(name for name, _ in chain) or '(none)'}")


def _tower_files(root: Path, folder: Path, pooling_folder: Path | None) -> TowerFiles:
    config, options = read_json(folder / "config.json"), read_json(folder / "sentence_bert_config.json")
    architectures = config.get("architectures") or []
    if not any(name.endswith("ForMaskedLM") for name in architectures):
        found = f"architectures {architectures}" if config else f"no config.json in {folder}"
        raise _refusal(root, found)
    if options.get("transformer_task", "fill-mask") != "fill-mask":
        raise _refusal(root, f"a Transformer for {options['transformer_task']!r}, not 'fill-mask'")
    tokenizer = folder if has_tokenizer(folder) else root
    limit = length_limit(config)
    max_length = DEFAULT_MAX_LENGTH
    if pooling_folder is not None:
        max_length = options.get("max_seq_length") or tokenizer_length(tokenizer) or max_length
    pooling, activation = (POOLINGS[0], ACTIVATIONS[0]) if pooling_folder is None else _pooling(pooling_folder)
    return TowerFiles(
        folder=folder,
        tokenizer=tokenizer,
        pooling=pooling,
        activation=activation,
        n_terms=int(config.get("vocab_size", 0)),
        max_length=min(max_length, limit),
        length_limit=limit,
        lowercase=bool(options.get("do_lower_case", False)),
    )


def _pooling(folder: Path) -> tuple[Pooling, Activation]:
    config = read_json(folder / "config.json")
    pooling, activation = config.get("pooling_strategy"), config.get("activation_function")
    if pooling not in POOLINGS or activation not in ACTIVATIONS:
        raise RepresentationError(
            f"{folder / 'config.json'}: pooling_strategy {pooling!r} and activation_function {activation!r}; "
            "expected max or sum, and relu or log1p_relu; the vectors depend on them, so neither is guessed"
        )
    return pooling, activation


def _table_files(root: Path, folder: Path) -> TableFiles:
    stated = read_json(folder / "config.json").get("path")
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
