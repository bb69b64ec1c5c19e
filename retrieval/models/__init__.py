"""The models that come with lexmax, by their short names: packed folders in this one."""

from pathlib import Path

SHIPPED = {
    "lexmax-splade": "splade",
    "lexmax-inference-free": "inference-free",
    "lexmax-colbert": "colbert",
    "lexmax-dense": "dense",
    "lexmax-gaussian": "gaussian",
    "lexmax-sae": "sae",
}
DEFAULT_ENCODERS = ("bm25", "lexmax-splade", "lexmax-colbert")
"""Fields of an index when nothing is said; `pipelines.defaults` has the expression that goes with them."""


def shipped_folder(name: str) -> Path | None:
    """Folder of a shipped model; None when no model of the name is here."""
    if name not in SHIPPED:
        return None
    folder = Path(__file__).resolve().parent / SHIPPED[name]
    return folder if (folder / "config.json").is_file() else None


def is_shipped(folder: Path) -> bool:
    """Whether a folder is one of those that come with lexmax."""
    return folder.resolve().parent == Path(__file__).resolve().parent


def shipped_names() -> list[str]:
    """Short names of the models that are here."""
    return [name for name in SHIPPED if shipped_folder(name) is not None]
