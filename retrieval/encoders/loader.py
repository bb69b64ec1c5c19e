"""From a model's name to its encoder: find the folder, recognise the layout, make the encoder.

A name is a local folder, a model that comes with lexmax, or a Hugging Face id looked up in the local cache and then on the
hub. Only safetensors, JSON and text files are fetched; code that comes with a checkpoint is never run.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ...index.errors import LexmaxError
from ..models import SHIPPED, shipped_folder, shipped_names
from .checkpoints.colbert import colbert_family, read_colbert_layout
from .checkpoints.splade import TableFiles, read_layout
from .colbert import ColbertConfig, ColbertEncoder
from .inference_free import InferenceFreeConfig, InferenceFreeEncoder
from .slim import SlimConfig, SlimEncoder
from .splade import SpladeConfig, SpladeEncoder

FETCHED = ["*.safetensors", "*.json", "*.txt", "artifact.metadata"]
KINDS = ("splade", "inference-free", "colbert", "slim")


def load_model_encoder(
    model: str,
    *,
    kind: str | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    **options: Any,
) -> SpladeEncoder | InferenceFreeEncoder | ColbertEncoder | SlimEncoder:
    """Make the neural encoder of a checkpoint.

    Parameters
    ----------
    model : str
        Folder, short name of a shipped model, or Hugging Face id.
    kind : {"splade", "inference-free", "colbert", "slim"} or None
        None recognises it from the files. A table of query weights makes a model inference-free; a SLIM looks like a SPLADE.
    device : str
        As torch names it.
    batch_size : int
        Texts in a batch.
    **options
        Fields of :class:`.SpladeConfig`, :class:`.InferenceFreeConfig`, :class:`.ColbertConfig` or :class:`.SlimConfig`,
        such as ``document_top_k``.

    Raises
    ------
    LexmaxError
        When the model cannot be found.
    RepresentationError
        When it is not a checkpoint that these encoders read.
    ValueError, TypeError
        When an option is unknown or out of range.
    """
    if kind not in (None, *KINDS):
        raise ValueError(f"kind is {kind!r}: a model is {' or '.join(KINDS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be >= 1")
    root = resolve_model(model)
    if kind == "colbert" or (kind is None and colbert_family(root)):
        _check_options(ColbertConfig, options)
        return ColbertEncoder(
            ColbertConfig(model=_lasting_name(model), **options),
            read_colbert_layout(root), device=device, batch_size=batch_size,
        )  # fmt: skip
    layout = read_layout(root)
    if kind == "slim":
        _check_options(SlimConfig, options)
        return SlimEncoder(
            SlimConfig(model=_lasting_name(model), **options), layout, device=device, batch_size=batch_size
        )  # fmt: skip
    if kind is None:
        kind = "inference-free" if isinstance(layout.query, TableFiles) else "splade"
    _check_options(InferenceFreeConfig if kind == "inference-free" else SpladeConfig, options)
    if kind == "inference-free":
        return InferenceFreeEncoder(
            InferenceFreeConfig(model=_lasting_name(model), **options),
            layout, device=device, batch_size=batch_size,
        )  # fmt: skip
    config = SpladeConfig(model=_lasting_name(model), **options)
    if config.query_model is not None:
        other = read_layout(resolve_model(config.query_model))
        layout = replace(layout, query=other.query, query_prompt=other.query_prompt)
        config = replace(config, query_model=_lasting_name(config.query_model))
    return SpladeEncoder(config, layout, device=device, batch_size=batch_size)


def resolve_model(model: str) -> Path:
    """Find a model: a folder, else a shipped one, else a snapshot in the Hugging Face cache, else one from the hub.

    Raises
    ------
    LexmaxError
        When it is nowhere; says what was tried, and which models are shipped.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if shipped := shipped_folder(model):
        return shipped
    ready = ", ".join(shipped_names()) or "none"
    if model in SHIPPED:
        raise LexmaxError(f"the model {model} does not come with this copy of lexmax; those that do: {ready}")
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise LexmaxError(f"no model folder at {folder}; with lexmax come: {ready}")
    from huggingface_hub import snapshot_download

    tried = []
    for place, offline in (("the Hugging Face cache", True), ("huggingface.co", False)):
        try:
            folder = Path(snapshot_download(model, allow_patterns=FETCHED, local_files_only=offline))
        except Exception as error:  # the library lets its HTTP client's own errors through
            tried.append(f"{place} ({str(error).splitlines()[0]})")
            continue
        if not offline or _has_weights(folder):
            return folder
        tried.append(f"{place} (a snapshot without weights)")
    raise LexmaxError(
        f"cannot find the model {model!r}: tried the folder {folder}, {', '.join(tried)}; "
        f"give the path of a local folder, or fetch the model once where there is a network; with lexmax come: {ready}"
    )


def shipped_defaults(model: str, device: str) -> dict[str, Any]:
    """Settings of a model that comes with lexmax, where none are given: the precision in which a device runs it fastest."""
    if model not in SHIPPED or Path(model).is_dir():  # a folder of that name comes first
        return {}
    from .networks.loading import fastest_dtype

    return {"dtype": fastest_dtype(device)}


def _has_weights(folder: Path) -> bool:
    return any(True for pattern in ("*.safetensors", "pytorch_model*.bin") for _ in folder.rglob(pattern))


def _lasting_name(model: str) -> str:
    """Name that finds the same model from any working directory."""
    folder = Path(model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model


def _check_options(
    config: type[SpladeConfig | InferenceFreeConfig | ColbertConfig | SlimConfig], options: dict[str, Any]
) -> None:  # fmt: skip
    known = {field.name for field in fields(config)} - {"model"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise TypeError(f"unknown options {', '.join(unknown)}: {config.__name__} takes {', '.join(sorted(known))}")
