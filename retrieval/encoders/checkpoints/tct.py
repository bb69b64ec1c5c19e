"""What the folder of a TCT-ColBERT holds, read from its JSON files, without torch (castorini/tct_colbert-msmarco and its kin).

A plain BERT with its tokenizer, in the root: nothing in it states the form of its texts, so the method must be named.
"""

from __future__ import annotations

from pathlib import Path

from ....index.errors import RepresentationError
from .dense import DenseLayout
from .transformer import read_transformer

DOCUMENT_LENGTH, QUERY_LENGTH = 512, 36
"""Tokens of a text that the published code reads."""
DOCUMENT_PROMPT, QUERY_PROMPT = "[CLS] [D] ", "[CLS] [Q] "


def read_tct_layout(root: Path) -> DenseLayout:
    """Read the model in a folder.

    Raises
    ------
    RepresentationError
        When it is none, or states something that is not known; the message names what was found.
    """
    if (root / "modules.json").is_file():
        raise RepresentationError(f"{root}: found modules.json; a tct model is a plain transformers folder: take kind=dense")
    files = read_transformer(root, root, task="feature-extraction")
    return DenseLayout(
        folder=files.folder,
        tokenizer=files.tokenizer,
        n_tokens=files.n_tokens,
        document_length=min(DOCUMENT_LENGTH, files.limit),
        query_length=min(QUERY_LENGTH, files.limit),
        length_limit=files.limit,
        lowercase=files.lowercase,
        pooling="mean",
        projections=(),
        dim=files.hidden,
        truncate_dim=None,
        normalize=False,
        normalize_last=False,
        document_prompt=DOCUMENT_PROMPT,
        query_prompt=QUERY_PROMPT,
    )
