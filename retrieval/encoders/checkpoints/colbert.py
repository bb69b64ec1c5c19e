"""Recognise the ColBERT checkpoint in a folder from its JSON files, without torch.

Accepted::

    artifact.metadata or HF_ColBERT                 Stanford: the projection is linear.weight in the root
    Transformer > Dense > ...                       PyLate: settings in config_sentence_transformers.json
    Transformer > Dense.. > MultiVectorMask > Normalize    MultiVectorEncoder of sentence-transformers 6

Stanford and PyLate insert a marker of one token after [CLS]: its id, for a marker typed as text may be cut into pieces.
sentence-transformers puts a prompt before the text, and saves a tokenizer that knows the marker in it.
"""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....index.errors import RepresentationError
from .colbert_layout import ACTIVATIONS, ColbertLayout, Projection, SideFiles
from .files import check_keys, modules, read_card, read_json, stated_prompts, tokenizer_length, whole_number
from .transformer import read_transformer

ACCEPTED = (
    "lexmax takes a Stanford ColBERT folder (artifact.metadata), a PyLate ColBERT (Transformer > Dense) or a "
    "sentence-transformers MultiVectorEncoder (Transformer > Dense > MultiVectorMask > Normalize)"
)
TOKENS = "token_embeddings"
FAMILIES = {
    "stanford": "a Stanford ColBERT checkpoint",
    "pylate": "a multi-vector model of PyLate",
    "sentence-transformers": "a multi-vector model of sentence-transformers",
}
PYLATE_KEYS = ("query_prefix", "document_prefix", "do_query_expansion", "attend_to_expansion_tokens")
PYLATE_CARD = (*PYLATE_KEYS, "query_length", "document_length", "skiplist_words")
# MaxSim of unit vectors, under the names that versions gave it.
SIMILARITIES = ("maxsim", "cosine", "dot")
MASK_KEYS = ("skiplist_words", "skiplist_tasks", "keep_only_token_ids")
DENSE_KEYS = (
    "in_features", "out_features", "bias", "activation_function", "module_input_name", "module_output_name", "use_residual",
)  # fmt: skip
# artifact.metadata: what is obeyed or checked, and what speaks of training, indexing and search alone.
STANFORD_KEYS = (
    "query_maxlen", "doc_maxlen", "dim", "query_token_id", "doc_token_id", "mask_punctuation", "attend_to_mask_tokens",
    "similarity", "interaction", "relu",
)  # fmt: skip
STANFORD_HARMLESS = (
    "accumsteps", "amp", "avoid_fork_if_possible", "bsize", "centroid_score_threshold", "checkpoint", "collection",
    "distillation_alpha", "doc_token", "experiment", "gpus", "ignore_scores", "index_bsize", "index_name", "index_path",
    "index_root", "kmeans_niters", "load_index_with_mmap", "lr", "maxsteps", "meta", "model_name", "name", "nbits", "ncells",
    "ndocs", "nranks", "nway", "overwrite", "queries", "query_token", "rank", "reranker", "resume", "root", "save_every",
    "triples", "use_ib_negatives", "version", "warmup", "warmup_bert",
)  # fmt: skip


def colbert_family(root: Path) -> str | None:
    """Which of `FAMILIES` the checkpoint in a folder belongs to; None when it is no ColBERT.

    Raises
    ------
    RepresentationError
        When a JSON file cannot be read.
    """
    # Before modules.json: a Stanford checkpoint may ship one that lists its Transformer only.
    architectures = read_json(root / "config.json").get("architectures") or []
    if (root / "artifact.metadata").is_file() or "HF_ColBERT" in architectures:
        return "stanford"
    card = read_json(root / "config_sentence_transformers.json")
    names = [name for name, _ in modules(root)]
    if card.get("model_type") == "MultiVectorEncoder" or "MultiVectorMask" in names:
        return "sentence-transformers"
    if card.get("model_type") == "ColBERT" or any(key in card for key in PYLATE_KEYS):
        return "pylate"
    return None


def read_colbert_layout(root: Path) -> ColbertLayout:
    """Read the ColBERT checkpoint in a folder.

    Raises
    ------
    RepresentationError
        When it is none, or computes something that is not known; the message names what was found.
    """
    match colbert_family(root):
        case "stanford":
            return _stanford(root)
        case "pylate":
            return _pylate(root)
        case "sentence-transformers":
            return _sentence_transformers(root)
    architectures = read_json(root / "config.json").get("architectures") or "(none)"
    raise _refusal(root, f"architectures {architectures} and modules {_names(modules(root))}")


def _stanford(root: Path) -> ColbertLayout:
    path, network = root / "artifact.metadata", _Network(root, root)
    metadata = read_json(path)
    check_keys(path, metadata, (*STANFORD_KEYS, *STANFORD_HARMLESS))
    for key, known in (("similarity", "cosine"), ("interaction", "colbert"), ("relu", False)):
        if metadata.get(key, known) not in (known, None):
            raise _refusal(root, f"a Stanford ColBERT with {key} {metadata[key]!r}, not {known!r}")
    length, dim = whole_number(path, metadata, "query_maxlen") or 32, whole_number(path, metadata, "dim") or 128
    return network.layout(
        projections=(Projection(folder=root, in_features=network.files.hidden, out_features=dim),),
        document=SideFiles(
            max_length=whole_number(path, metadata, "doc_maxlen") or 220, marker=metadata.get("doc_token_id") or "[unused1]"
        ),
        query=SideFiles(max_length=length, marker=metadata.get("query_token_id") or "[unused0]"),
        expand_to=length,
        attend=bool(metadata.get("attend_to_mask_tokens", False)),
        skipped=tuple(string.punctuation) if metadata.get("mask_punctuation", True) else (),
    )


def _pylate(root: Path) -> ColbertLayout:
    card, chain = read_json(root / "config_sentence_transformers.json"), modules(root)
    if "query_expansion" in card:
        raise _refusal(root, f"a PyLate model with query_expansion {card['query_expansion']!r}")
    read_card(root, *PYLATE_CARD)
    _check_similarity(root, card)
    if card.get("default_prompt_name"):
        raise _refusal(root, f"a PyLate model with default_prompt_name {card['default_prompt_name']!r}")
    if [name for name, _ in chain] != ["Transformer", *["Dense"] * (len(chain) - 1)] or len(chain) < 2:
        raise _refusal(root, f"a PyLate model of the modules {_names(chain)}")
    network = _Network(root, chain[0][1])
    prompts = card.get("prompts") or {}
    query_prefix, document_prefix = card.get("query_prefix", "[Q] ") or "", card.get("document_prefix", "[D] ") or ""
    path = root / "config_sentence_transformers.json"
    length = whole_number(path, card, "query_length") or 32
    skipped = card.get("skiplist_words")
    return network.layout(
        projections=tuple(_projection(root, folder) for _, folder in chain[1:]),
        # PyLate up to 3 may list its prefix among the prompts too.
        document=SideFiles(
            max_length=whole_number(path, card, "document_length") or 180,
            marker=document_prefix,
            prompt=(prompts.get("document") or "").removeprefix(document_prefix),
        ),
        query=SideFiles(max_length=length, marker=query_prefix, prompt=(prompts.get("query") or "").removeprefix(query_prefix)),
        expand_to=length if card.get("do_query_expansion", True) else 0,
        attend=bool(card.get("attend_to_expansion_tokens", False)),
        skipped=tuple(string.punctuation if skipped is None else skipped),
    )


def _sentence_transformers(root: Path) -> ColbertLayout:
    card, chain = read_json(root / "config_sentence_transformers.json"), modules(root)
    if [name for name, _ in chain] != ["Transformer", *["Dense"] * (len(chain) - 3), "MultiVectorMask", "Normalize"]:
        raise _refusal(root, f"a MultiVectorEncoder of the modules {_names(chain)}")
    older = [key for key in PYLATE_KEYS if key in card]
    if older:
        raise _refusal(root, f"a MultiVectorEncoder with PyLate's settings {', '.join(older)}")
    read_card(root)
    _check_similarity(root, card)
    network = _Network(root, chain[0][1])
    mask, normalize = read_json(chain[-2][1] / "config.json"), read_json(chain[-1][1] / "config.json")
    check_keys(chain[-2][1] / "config.json", mask, MASK_KEYS)
    check_keys(chain[-1][1] / "config.json", normalize, ("module_input_name", "module_output_name"))
    tasks = set(mask.get("skiplist_tasks") or ["document"])
    if mask.get("keep_only_token_ids") or not {"document"} <= tasks <= {"document", "query"}:
        raise _refusal(root, f"a MultiVectorMask with {mask}")
    if normalize.get("module_input_name") != TOKENS or normalize.get("module_output_name", TOKENS) != TOKENS:
        raise _refusal(root, f"a Normalize of {normalize.get('module_input_name', 'sentence_embedding')!r}, not {TOKENS!r}")
    document_prompt, query_prompt = stated_prompts(card)
    stated = tokenizer_length(network.files.tokenizer)
    expand_to, query_length, attend, token = _expansion(root, network.files.options, network.files.length("query", stated))
    return network.layout(
        projections=tuple(_projection(root, folder) for name, folder in chain if name == "Dense"),
        document=SideFiles(max_length=network.files.length("document", stated), prompt=document_prompt),
        query=SideFiles(max_length=query_length, prompt=query_prompt),
        expand_to=expand_to,
        attend=attend,
        skipped=tuple(mask.get("skiplist_words") or ()),
        skip_queries="query" in tasks,
        expansion_token=token,
    )


def _check_similarity(root: Path, card: Any) -> None:
    similarity = card.get("similarity_fn_name")
    if similarity and str(similarity).lower() not in SIMILARITIES:
        raise _refusal(root, f"a multi-vector model compared by similarity_fn_name {similarity!r}, not MaxSim")


def _expansion(root: Path, options: Any, length: int) -> tuple[int, int, bool, str | None]:
    """Width that queries are expanded to, their length, attention and expansion token."""
    expansion = options.get("query_expansion")
    if expansion is None:
        return 0, length, False, None
    width, strategy = expansion.get("length"), expansion.get("strategy")
    unknown = set(expansion) - {"strategy", "length", "attend", "token"}
    if strategy not in ("fixed", "min") or not isinstance(width, int) or width < 1 or unknown:
        raise _refusal(root, f"query_expansion {expansion!r}")
    return width, width if strategy == "fixed" else max(length, width), bool(expansion.get("attend")), expansion.get("token")


class _Network:
    """The transformer of a checkpoint, as its folder describes it."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.files = read_transformer(root, folder, task="feature-extraction")

    def layout(
        self, *, projections: tuple[Projection, ...], document: SideFiles, query: SideFiles, expand_to: int, attend: bool,
        skipped: tuple[str, ...], skip_queries: bool = False, expansion_token: str | None = None,
    ) -> ColbertLayout:  # fmt: skip
        """Join what all families know of their network with what the family's files say."""
        files, width = self.files, self.files.hidden
        for projection in projections:
            if projection.in_features != width:
                raise RepresentationError(
                    f"{projection.folder}: a Dense of {projection.in_features} inputs, after vectors of {width} numbers"
                )
            width = projection.out_features
        return ColbertLayout(
            folder=files.folder,
            tokenizer=files.tokenizer,
            n_tokens=files.n_tokens,
            length_limit=files.limit,
            lowercase=files.lowercase,
            projections=projections,
            dim=width,
            document=replace(document, max_length=min(document.max_length, files.limit)),
            query=replace(query, max_length=min(query.max_length, files.limit)),
            expand_to=min(expand_to, files.limit),
            attend=attend,
            expansion_token=expansion_token or _mask_token(files.tokenizer),
            skipped=skipped,
            skip_queries=skip_queries,
        )


def _projection(root: Path, folder: Path) -> Projection:
    config = read_json(folder / "config.json")
    check_keys(folder / "config.json", config, DENSE_KEYS)
    read, written = config.get("module_input_name") or TOKENS, config.get("module_output_name") or TOKENS
    if (read, written) != (TOKENS, TOKENS):
        raise _refusal(root, f"a Dense in {folder.name} from {read!r} to {written!r}, not over {TOKENS!r}")
    activation = str(config.get("activation_function"))
    if not activation.startswith("torch.nn.") or activation.rpartition(".")[2] not in ACTIVATIONS:
        raise _refusal(root, f"a Dense in {folder.name} with activation_function {activation!r}, not {', '.join(ACTIVATIONS)}")
    try:
        widths = {"in_features": int(config["in_features"]), "out_features": int(config["out_features"])}
    except (KeyError, TypeError, ValueError) as error:
        raise RepresentationError(f"{folder / 'config.json'}: no in_features and out_features") from error
    return Projection(
        folder=folder,
        bias=bool(config.get("bias", True)),
        activation=activation.rpartition(".")[2],
        residual=bool(config.get("use_residual", False)),
        **widths,
    )


def _mask_token(tokenizer: Path) -> str:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        stated = read_json(tokenizer / name).get("mask_token")
        if stated:
            return str(stated["content"] if isinstance(stated, dict) else stated)
    return "[MASK]"


def _names(chain: list[tuple[str, Path]]) -> str:
    return " > ".join(name for name, _ in chain) or "(none)"


def _refusal(root: Path, found: str) -> RepresentationError:
    return RepresentationError(f"{root}: found {found}; {ACCEPTED}")
