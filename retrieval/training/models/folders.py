"""Reads a checkpoint's network for training, and writes the files that public layouts share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ....index.errors import RepresentationError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json")


def load_network(folder: Path, kind: str, *, may_lack: Sequence[str] = ()) -> Any:
    """Read a network in float32.

    Parameters
    ----------
    folder : Path
        config.json and safetensors, or an old pytorch_model.bin, read without unpickling code.
    kind : str
        A class of transformers, such as "AutoModelForMaskedLM".
    may_lack : sequence of str
        Prefixes of parameters that may start at random when the files do not hold them.

    Raises
    ------
    RepresentationError
        When the network cannot be read, or parameters are absent that may not be.
    """
    import transformers

    if not (folder / "config.json").is_file():
        raise RepresentationError(f"{folder}: no config.json: a student starts from the folder of a transformers model")
    try:
        with quiet_transformers():
            network, info = getattr(transformers, kind).from_pretrained(
                str(folder), dtype=torch.float32, local_files_only=True, trust_remote_code=False, weights_only=True,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # transformers, torch and safetensors raise a dozen unrelated kinds here
        raise RepresentationError(f"{folder}: cannot load it as {kind}: {error}") from error
    absent = [str(key) for key in (*info["missing_keys"], *info["mismatched_keys"])]
    absent = sorted(key for key in absent if not key.startswith(tuple(may_lack)))
    if absent:
        raise RepresentationError(
            f"{folder}: the weights lack {len(absent)} parameters of {type(network).__name__}, such as {absent[0]}: "
            "take a checkpoint that has them"
        )
    return network


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing bars and tables of parameters on stderr; what matters of them raises here."""
    from transformers.utils import logging

    talk: Any = logging  # untyped
    shown, verbosity = talk.is_progress_bar_enabled(), talk.get_verbosity()
    talk.disable_progress_bar()
    talk.set_verbosity_error()
    try:
        yield
    finally:
        talk.set_verbosity(verbosity)
        if shown:
            talk.enable_progress_bar()


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


def check_lengths(config: Any, *lengths: int) -> None:
    """Raise ValueError when texts may be longer than a network has positions."""
    limit = getattr(config, "max_position_embeddings", None)
    if limit and max(lengths) > limit:
        raise ValueError(f"a length is {max(lengths)}, but the model reads {limit} tokens at most")


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
