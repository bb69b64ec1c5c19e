"""What the folder of a multivariate (Gaussian) model holds, read from its JSON files, without torch.

A folder as `lexmax train gaussian` writes it: the transformer and its tokenizer in the root, and

    gaussian/config.json          `KEYS`
    gaussian/model.safetensors    mean.weight, variance.weight (n_dims, hidden), centre, spread (2 n_dims + 1,), all float32

No public checkpoint of the method is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ....index.errors import RepresentationError
from .dense import DenseLayout
from .files import check_keys, read_json
from .transformer import read_transformer

HEAD = "gaussian"
"""Folder of what comes after the transformer."""
POOLINGS = ("cls", "mean")
KEYS = ("n_dims", "beta", "pooling", "document_marker", "query_marker", "document_length", "query_length")


@dataclass(frozen=True, kw_only=True)
class GaussianLayout:
    """A model that encodes texts as normal distributions.

    Attributes
    ----------
    text : DenseLayout
        Transformer, tokenizer and lengths; its prompts are the tokens after [CLS], and its vectors are those that the index
        holds. Its pooling says which states the layers read: "cls", that of [CLS] for means and that of the token after it
        for variances, as published, or "mean", the mean of all states for both.
    n_dims : int
        Of a distribution.
    beta : float
        Of the softplus that makes variances positive.
    """

    text: DenseLayout
    n_dims: int
    beta: float

    @property
    def head(self) -> Path:
        """Folder of the two linear layers, and of the numbers that vectors are standardised by."""
        return self.text.folder / HEAD


def is_gaussian(root: Path) -> bool:
    """Whether a folder says that it holds such a model."""
    return (root / HEAD / "config.json").is_file()


def read_gaussian_layout(root: Path) -> GaussianLayout:
    """Read the model in a folder.

    Raises
    ------
    RepresentationError
        When it is none, or states something that is not known; the message names what was found.
    """
    path = root / HEAD / "config.json"
    stated = read_json(path)
    if not stated:
        raise RepresentationError(
            f"{root}: no {HEAD}/config.json: a gaussian model is a folder that lexmax train gaussian wrote"
        )
    check_keys(path, stated, KEYS)
    missing = [key for key in KEYS if key not in stated]
    if missing:
        raise RepresentationError(f"{path}: no {', '.join(missing)}")
    files = read_transformer(root, root, task="feature-extraction")
    lengths = [_number(path, stated, f"{side}_length") for side in ("document", "query")]
    if not all(4 <= length <= files.limit for length in lengths):
        raise RepresentationError(f"{path}: lengths of {lengths} tokens: this model reads 4 to {files.limit}")
    beta = stated["beta"]
    if not isinstance(beta, int | float) or isinstance(beta, bool) or not 0 < beta < 1e6:
        raise RepresentationError(f"{path}: beta is {beta!r}: it must be a number > 0")
    if stated["pooling"] not in POOLINGS:
        raise RepresentationError(f"{path}: pooling is {stated['pooling']!r}: it must be one of {', '.join(POOLINGS)}")
    n_dims, tokens = _number(path, stated, "n_dims"), [_token(path, stated, side) for side in ("document", "query")]
    text = DenseLayout(
        folder=files.folder,
        tokenizer=files.tokenizer,
        n_tokens=files.n_tokens,
        document_length=lengths[0],
        query_length=lengths[1],
        length_limit=files.limit,
        lowercase=files.lowercase,
        pooling=stated["pooling"],
        projections=(),
        dim=2 * n_dims + 2,
        truncate_dim=None,
        normalize=False,
        normalize_last=False,
        document_prompt=tokens[0],
        query_prompt=tokens[1],
    )
    return GaussianLayout(text=text, n_dims=n_dims, beta=float(beta))


def _number(path: Path, stated: object, key: str) -> int:
    value = stated[key]  # type: ignore[index]
    if type(value) is not int or value < 1:
        raise RepresentationError(f"{path}: {key} is {value!r}: it must be a whole number >= 1")
    return value


def _token(path: Path, stated: object, side: str) -> str:
    value = stated[f"{side}_marker"]  # type: ignore[index]
    if not isinstance(value, str) or not value:
        raise RepresentationError(f"{path}: {side}_marker is {value!r}: it must be a token of the tokenizer")
    return value
