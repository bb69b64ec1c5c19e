"""A checkpoint's JSON files, read without torch: what every layout's reader asks of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ....index.errors import RepresentationError

NO_LIMIT = 2**20
# Families that number positions from the padding id on: of their rows, fewer than all are for tokens.
OFFSET_POSITIONS = ("camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")


def read_json(path: Path) -> Any:
    """Content of a JSON file, an empty dict when there is none.

    Raises
    ------
    RepresentationError
        When the file is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RepresentationError(f"{path} is not JSON: {error}") from error


def path_inside(root: Path, folder: Path, relative: str) -> Path:
    """Join a path that a checkpoint's JSON names, refusing one that leaves the checkpoint."""
    path = folder / relative
    if ".." in Path(relative).parts or Path(relative).is_absolute():
        raise RepresentationError(f"{root}: names the file {relative!r}, outside of its own folder")
    return path


def class_name(type_path: str) -> str:
    """Last part of a dotted name, as modules.json gives it."""
    return type_path.rsplit(".", 1)[-1]


def length_limit(config: Any) -> int:
    """Tokens that the network of a config.json reads at most, special tokens included."""
    positions = config.get("max_position_embeddings") or config.get("n_positions") or 0
    if positions <= 0:
        return NO_LIMIT
    offset = config.get("pad_token_id") or 0
    return int(positions) - (offset + 1 if config.get("model_type") in OFFSET_POSITIONS else 0)


def stated_prompts(card: Any) -> tuple[str, str]:
    """Prompts of documents and of queries in a config_sentence_transformers.json."""
    prompts = card.get("prompts") or {}
    default = prompts.get(card.get("default_prompt_name"))
    named = [prompts[name] for name in ("document", "passage", "corpus") if name in prompts]
    return (named[0] if named else default) or "", prompts.get("query", default) or ""


def tokenizer_length(folder: Path) -> int | None:
    """Length stated by the tokenizer; transformers writes 1e30 for "none"."""
    stated = read_json(folder / "tokenizer_config.json").get("model_max_length")
    return int(stated) if stated and stated < NO_LIMIT else None
