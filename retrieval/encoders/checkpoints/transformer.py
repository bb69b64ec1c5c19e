"""The transformer of a checkpoint as its JSON files describe it: config.json, sentence_bert_config.json, tokenizer settings.

config.json itself is transformers' to obey. What its reader would pass over in silence is refused here: code that comes with
the checkpoint, adapters, relative positions that transformers no longer computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....index.errors import MissingDependencyError, RepresentationError
from .files import NO_LIMIT, check_keys, read_json, whole_number
from .tokenizer_files import has_tokenizer

# Families whose positions are numbered from 0, and from behind the padding id, with its default; others are looked at.
FROM_ZERO = ("bert", "distilbert", "electra")
FROM_PADDING = {"roberta": 1, "xlm-roberta": 1, "camembert": 1}
POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
OPTIONS_FILES = ("sentence_bert_config.json", *(
    f"sentence_{family}_config.json" for family in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
))  # fmt: skip
OBEYED = ("max_seq_length", "do_lower_case", "document_length", "query_length", "query_expansion")
KEPT_ARGUMENTS = ("model_args", "config_args", "tokenizer_args", "model_kwargs", "config_kwargs", "processor_kwargs")
# What sentence-transformers passes on to transformers' loading functions, and changes no number.
HARMLESS_ARGUMENTS = (
    "attn_implementation",
    "dtype",
    "low_cpu_mem_usage",
    "torch_dtype",
    "trust_remote_code",
    "use_safetensors",
)


@dataclass(frozen=True, kw_only=True)
class TransformerFiles:
    """A transformer.

    Attributes
    ----------
    folder, tokenizer : Path
        Where its weights and config.json are, and where its tokenizer is.
    options_file : Path
        sentence_bert_config.json, or that of an older name.
    config, options : dict
        config.json and the options.
    n_tokens, hidden : int
        Rows of the embedding table, and width of the hidden states.
    limit : int
        Tokens that it reads at most, special tokens included.
    lowercase : bool
        Lower-case the text before the tokenizer does its own.
    """

    folder: Path
    tokenizer: Path
    options_file: Path
    config: Any
    options: Any
    n_tokens: int
    hidden: int
    limit: int
    lowercase: bool

    def length(self, side: str, default: int | None) -> int:
        """Tokens that texts of a side ("document", "query") are cut to; ``default`` or the limit where no option says it."""
        stated = (whole_number(self.options_file, self.options, key) for key in (f"{side}_length", "max_seq_length"))
        return min(next(filter(None, stated), default or self.limit), self.limit)


def read_transformer(root: Path, folder: Path, *, task: str) -> TransformerFiles:
    """Read the transformer in a module's folder.

    Parameters
    ----------
    root, folder : Path
        Of the checkpoint, and of the module.
    task : {"feature-extraction", "fill-mask"}
        What it must be for.

    Raises
    ------
    RepresentationError
        When a file states something that is not known; names it.
    """
    config = read_json(folder / "config.json")
    path = next((folder / name for name in OPTIONS_FILES if (folder / name).is_file()), folder / OPTIONS_FILES[0])
    options = read_json(path)
    if not config:
        raise RepresentationError(f"{root}: no config.json in {folder}")
    _check_config(folder, config, "AutoModelForMaskedLM" if task == "fill-mask" else "AutoModel")
    for place in (root, folder):
        if (place / "adapter_config.json").is_file():
            raise RepresentationError(f"{place}: found a PEFT adapter, which must be merged into its base model first")
    _check_options(path, options, task)
    tokenizer = folder if has_tokenizer(folder) else root
    return TransformerFiles(
        folder=folder,
        tokenizer=tokenizer,
        options_file=path,
        config=config,
        options=options,
        n_tokens=int(config.get("vocab_size") or 0),
        hidden=int(config.get("hidden_size") or config.get("dim") or 0),
        limit=length_limit(folder, config),
        lowercase=bool(options.get("do_lower_case", False)),
    )


def length_limit(folder: Path, config: Any) -> int:
    """Tokens that the network of a config.json reads at most, special tokens included.

    Raises
    ------
    RepresentationError
        When the network must be looked at, and transformers does not know it.
    MissingDependencyError
        When it must be looked at, without torch and transformers.
    """
    positions, family = config.get("max_position_embeddings") or 0, config.get("model_type")
    if family in FROM_ZERO or family is None:
        return int(positions) if positions > 0 else NO_LIMIT
    if family in FROM_PADDING and positions > 0:
        padding = config.get("pad_token_id")
        return int(positions) - 1 - (FROM_PADDING[family] if padding is None else int(padding))
    return probed_limit(folder)


def probed_limit(folder: Path) -> int:
    """Tokens that a network reads at most, by its table of positions, whose rows up to the padding id are for no token.

    Raises
    ------
    RepresentationError, MissingDependencyError
        As `length_limit`.
    """
    try:
        import torch
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise MissingDependencyError("torch and transformers", "encode", "a neural encoder") from error
    from ..networks.loading import quiet_transformers

    try:
        with quiet_transformers(), torch.device("meta"):
            config: Any = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            auto: Any = AutoModel  # untyped
            network: Any = auto.from_config(config, trust_remote_code=False)
    except Exception as error:  # transformers raises a dozen unrelated kinds here
        raise RepresentationError(f"{folder}: transformers cannot make a network of config.json: {error}") from error
    stated = getattr(config, "max_position_embeddings", None) or 0
    limits = [stated] if stated > 0 else []
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in POSITION_TABLES and isinstance(module, torch.nn.Embedding):
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return int(min(limits, default=NO_LIMIT))


def _check_config(folder: Path, config: Any, auto_class: str) -> None:
    """Refuse settings of config.json that transformers passes over, or that make vectors depend on other texts."""
    family, code = config.get("model_type"), config.get("auto_map") or {}
    positions = config.get("position_embedding_type") or "absolute"
    for key, found, refused in (
        ("is_encoder_decoder", "an encoder-decoder network", config.get("is_encoder_decoder")),
        # transformers would take a class of its own under this name, which computes something else.
        ("auto_map", f"code that comes with the checkpoint ({code.get(auto_class)}), which is never run", auto_class in code),
        ("position_embedding_type", f"{positions!r}, which transformers does not compute", positions != "absolute"),
        (
            "attention_type", "sparse attention, which the network leaves for good at its first short text: set original_full",
            family == "big_bird" and config.get("attention_type") != "original_full",
        ),
    ):  # fmt: skip
        if refused and (key, family) != ("position_embedding_type", "esm"):
            raise RepresentationError(f"{folder / 'config.json'}: {key}: found {found}")


def _check_options(path: Path, options: Any, task: str) -> None:
    """Refuse settings of sentence_bert_config.json that are not obeyed."""
    output = "logits" if task == "fill-mask" else "last_hidden_state"
    wanted = {
        "transformer_task": task,
        "module_output_name": "token_embeddings",
        "modality_config": {"text": {"method": "forward", "method_output_name": output}},
    }
    for key, value in wanted.items():
        if options.get(key, value) != value:
            raise RepresentationError(f"{path}: found a Transformer with {key} {options[key]!r}, not {value!r}")
    for key in KEPT_ARGUMENTS:
        unknown = sorted(set(options.get(key) or {}) - set(HARMLESS_ARGUMENTS))
        if unknown:
            raise RepresentationError(f"{path}: found {key} with {', '.join(unknown)}, which may change vectors")
    # unpad_inputs changes speed alone.
    check_keys(path, options, (*wanted, *OBEYED, *KEPT_ARGUMENTS, "unpad_inputs"))
