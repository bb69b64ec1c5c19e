"""From a model's name to its encoder: find the folder, recognise the layout, make the encoder.

A name is a local folder, a model that comes with lexmax, or a Hugging Face id looked up in the local cache and then on the
hub. Only safetensors, JSON and text files are fetched; code that comes with a checkpoint is never run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...index.errors import LexmaxError, RepresentationError
from ...index.nearest import did_you_mean
from ..models import SHIPPED, shipped_folder, shipped_names
from .checkpoints.colbert import colbert_family
from .checkpoints.files import modules
from .checkpoints.gaussian import is_gaussian
from .checkpoints.hypencoder import is_hypencoder
from .checkpoints.sae import is_sae
from .checkpoints.splade import TableFiles, read_layout
from .methods import METHODS, check_settings, imported, method_of
from .networks.devices import check_device

OWN: dict[str, Callable[[Path], bool]] = {"sae": is_sae, "hypencoder": is_hypencoder, "gaussian": is_gaussian}
"""Kinds that state themselves in a file of their own."""
FETCHED = ["*.safetensors", "*.json", "*.txt", "*.model", "artifact.metadata"]


def load_model_encoder(
    model: str,
    *,
    kind: str | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    **options: Any,
) -> Any:
    """Make the neural encoder of a checkpoint.

    Parameters
    ----------
    model : str
        Folder, short name of a shipped model, or Hugging Face id.
    kind : str or None
        One of `methods.METHODS` that has a model. None recognises it from the files. A table of query weights makes a model
        inference-free; a SLIM and a TCT-ColBERT look like a SPLADE, and must be named.
    device : str
        As torch names it.
    batch_size : int
        Texts in a batch.
    **options
        Fields of :class:`.SpladeConfig`, :class:`.InferenceFreeConfig`, :class:`.ColbertConfig`, :class:`.SlimConfig`,
        :class:`.DenseConfig` or :class:`.SaeConfig`, such as ``document_top_k``.

    Raises
    ------
    LexmaxError
        When the model cannot be found.
    RepresentationError
        When it is not a checkpoint that these encoders read.
    ValueError, TypeError
        When an option is unknown or out of range.
    """
    if kind is not None and method_of(kind).layout is None:
        raise ValueError(f"kind is {kind!r}: it has no model")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be >= 1")
    if kind is not None:
        check_settings(kind, options)
    check_device(device)
    root = resolve_model(model)
    if kind is None:
        kind = _read(root, recognised)
        check_settings(kind, options)
    method = METHODS[kind]
    layout = _read(root, imported(str(method.layout)))
    config = imported(method.settings)(model=lasting_name(model), **options)
    if getattr(config, "query_model", None) is not None:
        other = _read(resolve_model(config.query_model), imported(str(method.layout)))
        layout = replace(layout, query=other.query, query_prompt=other.query_prompt)
        config = replace(config, query_model=lasting_name(config.query_model))
    if getattr(config, "base", None) is not None:
        config = replace(config, base=lasting_name(config.base))
    return imported(method.encoder)(config, layout, device=device, batch_size=batch_size)


def is_own(root: Path) -> bool:
    """Whether a model states its kind in a file of its own."""
    return any(is_kind(root) for is_kind in OWN.values())


def recognised(root: Path) -> str:
    """Kind of a model by its files; raises RepresentationError for one that is not recognised."""
    own = next((kind for kind, is_kind in OWN.items() if is_kind(root)), None)
    if own is not None:
        return own
    if colbert_family(root):
        return "colbert"
    classes = [name for name, _ in modules(root)]
    if "Pooling" in classes and "SparseAutoEncoder" not in classes:
        return "dense"
    return "inference-free" if isinstance(read_layout(root).query, TableFiles) else "splade"


def _read(root: Path, reader: Callable[[Path], Any]) -> Any:
    """What a reader makes of a folder; JSON of other types than expected is an error too."""
    try:
        return reader(root)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, LexmaxError):
            raise
        raise RepresentationError(f"{root}: its JSON files are malformed: {type(error).__name__}: {error}") from error


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
        f"cannot find the model {model!r}{did_you_mean(model, [*SHIPPED, *METHODS])}: tried the folder {Path(model)}, "
        f"{', '.join(tried)}; give the path of a local folder, or fetch the model once where there is a network; with lexmax "
        f"come: {ready}"
    )


def _has_weights(folder: Path) -> bool:
    return any(True for pattern in ("*.safetensors", "pytorch_model*.bin") for _ in folder.rglob(pattern))


def lasting_name(model: str) -> str:
    """Name that finds the same model from any working directory."""
    folder = Path(model).expanduser()
    return str(folder.resolve()) if folder.is_dir() else model
