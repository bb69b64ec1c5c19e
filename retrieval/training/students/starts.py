"""What a student starts from: a checkpoint of its own kind, whose layout it takes, or a plain transformer.

A checkpoint of another kind holds things that the student has no place for: projections, prompts, a table of query weights. It
is refused by name, unless ``ignore_layout`` says that its network alone is wanted.
"""

from __future__ import annotations

from pathlib import Path

from ....index.errors import RepresentationError
from ...encoders.checkpoints.colbert import colbert_family
from ...encoders.checkpoints.files import modules
from ...encoders.loader import is_own, recognised

TAKEN = {
    "splade": ("splade",), "inference-free": ("inference-free", "splade"), "colbert": ("colbert",), "dense": ("dense",),
    "gaussian": ("gaussian",), "hypencoder": ("hypencoder",),
}  # fmt: skip


def kind_of(root: Path) -> str | None:
    """What a checkpoint's files state it to be: "colbert", "dense", "splade" or "inference-free"; None: a plain transformer.

    Raises
    ------
    RepresentationError
        When they state something that is not known.
    """
    stated = (colbert_family(root), modules(root), (root / "idf.json").is_file(), is_own(root))
    return recognised(root) if any(stated) else None


def takes_layout(root: Path, method: str, *, ignore_layout: bool) -> bool:
    """Whether a student of a method takes the layout of a checkpoint; False for a plain transformer.

    Raises
    ------
    RepresentationError
        When the checkpoint is of a kind whose settings the student would lose.
    """
    kind = None if ignore_layout else kind_of(root)
    if kind is not None and kind not in TAKEN[method]:
        raise RepresentationError(
            f"{root}: found a checkpoint of kind {kind}, of which a {method} student would keep the network alone: "
            f"train it as {kind}, or set ignore_layout=true"
        )
    return kind is not None


def network_folder(root: Path) -> Path:
    """Where the transformer of a checkpoint is: in its root, or in the folder of its first module."""
    listed = [] if (root / "config.json").is_file() else modules(root)
    return listed[0][1] if listed else root
