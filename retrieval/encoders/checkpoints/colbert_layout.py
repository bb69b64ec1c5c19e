"""A ColBERT checkpoint as its files describe it: network, projections, markers, lengths, skipped tokens.

`colbert_checkpoints` reads it from a folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")


@dataclass(frozen=True, kw_only=True)
class Projection:
    """One linear layer over token vectors: ``y = activation(x W' + b)``, plus ``x`` or ``x R'`` with a residual.

    Attributes
    ----------
    folder : Path
        Holds the tensors ``linear.weight`` (out, in), ``linear.bias`` (out,) and ``residual.weight`` (out, in).
    in_features, out_features : int
        Widths of x and y.
    bias, residual : bool
        Whether there are such terms.
    activation : str
        One of `ACTIVATIONS`, as torch.nn names it.
    """

    folder: Path
    in_features: int
    out_features: int
    bias: bool = False
    activation: str = "Identity"
    residual: bool = False


@dataclass(frozen=True, kw_only=True)
class SideFiles:
    """How texts of one side are read.

    Attributes
    ----------
    max_length : int
        Tokens of a text, special ones and the marker included.
    marker : str
        A token whose id stands after [CLS]; "" for none.
    prompt : str
        Put before the text.
    """

    max_length: int
    marker: str = ""
    prompt: str = ""


@dataclass(frozen=True, kw_only=True)
class ColbertLayout:
    """A ColBERT checkpoint.

    Attributes
    ----------
    folder, tokenizer : Path
        Where the network's weights and config.json are, and where the tokenizer is.
    n_tokens, length_limit : int
        Rows of the embedding table, and tokens that the network reads at most.
    lowercase : bool
        Lower-case the text before the tokenizer does its own.
    projections : tuple of Projection
        Applied in this order to the network's last hidden states.
    dim : int
        Numbers of a token vector.
    document, query : SideFiles
        How each side is read.
    expand_to : int
        Queries get expansion tokens up to that many tokens; 0 for none.
    attend : bool
        Whether other tokens see the expansion tokens.
    expansion_token : str
        "[MASK]", as a rule.
    skipped : tuple of str
        Tokens whose vectors are dropped from documents, and from queries if ``skip_queries``.
    """

    folder: Path
    tokenizer: Path
    n_tokens: int
    length_limit: int
    lowercase: bool = False
    projections: tuple[Projection, ...]
    dim: int
    document: SideFiles
    query: SideFiles
    expand_to: int
    attend: bool
    expansion_token: str
    skipped: tuple[str, ...]
    skip_queries: bool = False
