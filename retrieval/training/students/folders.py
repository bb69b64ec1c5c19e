"""Reads a trunk for training, and writes the files that public layouts share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...encoders.networks.loading import load_network

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip


def load_trunk(folder: Path) -> Any:
    """Read a network without a head; a pooler, which no student here uses, is dropped.

    Raises
    ------
    RepresentationError
        As `load_network`.
    """
    trunk = load_network(folder, "AutoModel", may_lack=("pooler.",))
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None
    return trunk


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy whatever tokenizer files there are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    """Write sentence-transformers' modules.json of (folder, class) pairs."""
    entries = [{"idx": i, "name": str(i), "path": path, "type": name} for i, (path, name) in enumerate(modules)]
    write_json(folder / "modules.json", entries)
