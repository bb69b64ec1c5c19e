"""Sparse autoencoders: the vectors of another encoder as weights over latents (arXiv 2406.04093, 2408.00657, 2605.29384).

::

    z = TopK(W_e (scale (v - mean) - b_d) + b_e)        a vector v: a token's, or that of the whole text
    a = max z or sum z                                  over the vectors of a text
    log1p      log1p(gain a), of queries times idf, which was counted in the training text
    bm25       gain a, of documents rounded, as term counts that the index weighs: by saturation, length and its own idf

The terms are latents, called ``latent-NUMBER LABEL``; no MLM head is needed. The vectors are those of a ColBERT or of a dense
model, whose trunk is shared with other fields.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ...index.arguments import texts_of
from ...index.arrays import Floats, Int32s
from ...index.errors import RepresentationError
from ...index.kernels import read_only
from ...index.representations.sparse import SparseVectors
from ...index.sparse.bm25 import Bm25
from ..kernels.latents import largest, pooled
from .base import fingerprint_of
from .checkpoints.sae import SaeLayout, read_latents
from .shared_pass import NetworkSide, encode_side
from .tower import check_choices, chosen, keep_largest

if TYPE_CHECKING:
    import torch

    from .networks.masked_lm import Dtype
    from .networks.trunk import Trunk

Row = tuple[Int32s, Floats]
MATRICES = ("encoder", "decoder")
VECTORS = ("encoder_bias", "idf", "decoder_bias", "mean")


@dataclass(frozen=True, kw_only=True)
class SaeConfig:
    """What a user may choose; None leaves the checkpoint's choice.

    Attributes
    ----------
    model : str
        Folder or Hugging Face id.
    base : str
        Where the model is that it decomposes the vectors of.
    document_length, query_length : int
        Tokens of a text that are read, as that model takes them.
    document_top_k, query_top_k : int
        Weights that a text keeps, the largest.
    dtype : {"float32", "bfloat16", "int8"}
        Of the trunk; the autoencoder itself is float32 always.
    """

    model: str
    base: str | None = None
    document_length: int | None = None
    query_length: int | None = None
    document_top_k: int | None = None
    query_top_k: int | None = None
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("document_top_k", "query_top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be >= 1")


class Autoencoder(NamedTuple):
    """Weights as the encoder uses them, float32.

    Attributes
    ----------
    weights : (dim, n_latents)
        W_e, transposed, times the scale.
    biases : (n_latents,)
        What is added to products with vectors as they are.
    idf : (n_latents,)
    """

    weights: Floats
    biases: Floats
    idf: Floats


class SaeEncoder:
    """Encodes texts as weights over latents; the weights are read at the first text.

    Parameters
    ----------
    config : SaeConfig
        Choices.
    layout : SaeLayout
        The checkpoint's files.
    device : str
        Where the trunk runs, as torch names it.
    batch_size : int
        Taken for the sake of other encoders; the shared pass makes its own batches.

    Raises
    ------
    RepresentationError
        The model whose vectors it decomposes is another than it was trained on.
    ValueError
        A length is out of range.
    """

    representation = "sparse"
    kind = "sae"

    def __init__(self, config: SaeConfig, layout: SaeLayout, *, device: str, batch_size: int) -> None:
        self._config, self._lock = config, threading.Lock()
        self._layout = replace(layout, **{
            name: value for name in ("document_top_k", "query_top_k") if (value := getattr(config, name)) is not None
        })  # fmt: skip
        self.base = self._base(device)
        self.bm25 = Bm25(k1=layout.k1, b=layout.b) if layout.weighting == "bm25" else None
        """Parameters of the field that holds term counts; None where it holds weights."""
        self._autoencoder: Autoencoder | None = None
        self.document_side = SaeSide(self, self.base.document_side, self._layout.document_top_k, queries=False)
        self.query_side = SaeSide(self, self.base.query_side, self._layout.query_top_k, queries=True)
        """The two sides' ways through the trunk; see `.shared_pass`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The choices that differ from the defaults."""
        return chosen(self._config)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the autoencoder's weights and settings, and of the encoder below it."""
        from .networks.loading import weights_digest

        layout = self._layout
        facts = {
            "weights": weights_digest(layout.folder),  # with config.json
            "base": self.base.fingerprint,
            "top_k": [layout.document_top_k, layout.query_top_k],
        }
        return fingerprint_of(self.kind, facts)

    @cached_property
    def names(self) -> Sequence[str]:
        """Names of the latents, ``latent-NUMBER LABEL``."""
        return [f"latent-{number} {each['label']}".rstrip() for number, each in enumerate(read_latents(self._layout))]

    @property
    def vocabulary(self) -> Sequence[str] | None:
        """Names of the latents; None with BM25's weighting, whose vectors bring their own."""
        return None if self.bm25 else self.names

    def encode_documents(self, texts: Sequence[str]) -> SparseVectors:
        """Encode documents; row ``i`` belongs to ``texts[i]``. The first call loads torch and the network."""
        return self._encode(self.document_side, texts)

    def encode_queries(self, texts: Sequence[str]) -> SparseVectors:
        """Encode queries; row ``i`` belongs to ``texts[i]``."""
        return self._encode(self.query_side, texts)

    def surface_terms(self, text: str) -> set[str]:
        """All latents: none is an expansion, since each stands for something that the text says."""
        return set(self.names)

    def n_truncated(self, texts: Sequence[str]) -> int:
        """How many of the documents are longer than the encoder reads, and lose their ends."""
        return int(self.base.n_truncated(texts))

    def load(self) -> Autoencoder:
        """Read the autoencoder's weights, once.

        Raises
        ------
        RepresentationError
            When they are incomplete, of another size than config.json says, or not finite.
        """
        with self._lock:
            if self._autoencoder is None:
                self._autoencoder = _read(self._layout)
            return self._autoencoder

    def row(self, vectors: Floats, *, query: bool) -> Row:
        """Latents and weights of a text from its vectors (n, dim) float32: one a token, or the text's only one."""
        layout, (weights, biases, idf) = self._layout, self.load()
        latents = np.empty((len(vectors), layout.n_active), np.int32)
        values = np.empty(latents.shape, np.float32)
        # A product for each text: so no text's last bits depend on those beside it.
        largest(read_only(vectors @ weights + biases), layout.n_active, latents, values)
        activations = np.zeros(layout.n_latents, np.float32)
        pooling = layout.query_pooling if query else layout.document_pooling
        pooled(read_only(latents), read_only(values), pooling == "sum", activations)
        activations *= np.float32(layout.gain)
        if self.bm25:
            found = activations if query else np.rint(activations)
        else:
            found = np.log1p(activations) * idf if query else np.log1p(activations)
        terms = np.flatnonzero(found)
        return terms.astype(np.int32), found[terms]

    def joined(self, rows: Sequence[Row], top_k: int | None) -> SparseVectors:
        """Join texts, each with its largest weights."""
        vectors = keep_largest(SparseVectors.from_rows(rows), top_k)  # type: ignore[arg-type]
        if self.bm25 is None:
            return vectors
        used, terms = np.unique(vectors.terms, return_inverse=True)
        names = [self.names[number] for number in used.tolist()]
        return SparseVectors(vectors.indptr, terms.astype(np.int32), vectors.weights, names)

    def _encode(self, side: SaeSide, texts: Sequence[str]) -> SparseVectors:
        return cast(SparseVectors, encode_side(side, texts_of(texts)))

    def _base(self, device: str) -> Any:
        """Make the encoder below, and hold it to what the autoencoder was trained on."""
        from .registry import load_encoder

        config, base = self._config, self._layout.base
        model = config.base or base.model

        def made(**settings: Any) -> Any:
            return load_encoder(base.kind, model=model, device=device, **{**base.settings, **settings})

        stated = made(dtype="float32")
        if stated.fingerprint != base.fingerprint:
            raise RepresentationError(
                f"{self._layout.folder}: was trained on vectors of {base.model} ({base.fingerprint}), but the {base.kind} "
                f"model at {model} is {stated.fingerprint}: say where that model is (base=DIR_OR_ID)"
            )
        if stated.dim != self._layout.dim:
            raise RepresentationError(
                f"{self._layout.folder}: config.json says dim {self._layout.dim}, the vectors of {model} have {stated.dim}"
            )
        lengths = {name: value for name in ("document_length", "query_length") if (value := getattr(config, name)) is not None}
        return stated if config.dtype == "float32" and not lengths else made(dtype=config.dtype, **lengths)


class SaeSide:
    """One side of a sparse autoencoder over a side of another encoder; see `.shared_pass.NetworkSide`."""

    def __init__(self, encoder: SaeEncoder, base: NetworkSide, top_k: int | None, *, queries: bool) -> None:
        self._encoder, self._base, self._top_k, self._queries = encoder, base, top_k, queries

    @property
    def trunk(self) -> Trunk | None:
        """The trunk of the encoder below, loaded."""
        return self._base.trunk

    @property
    def facts(self) -> str:
        """Whatever changes the vectors."""
        return f"{self._encoder.fingerprint} {self._base.facts} {self._queries}"

    def rows(self, texts: Sequence[str]) -> list[Any]:
        """Rows of tokens of the texts, as the encoder below reads them."""
        return self._base.rows(texts)

    def results(self, rows: Sequence[Any], states: Sequence[torch.Tensor]) -> list[Row]:
        """Latents and weights of each text from the trunk's states."""
        found = self._base.results(rows, states)
        return [self._encoder.row(np.atleast_2d(each), query=self._queries) for each in found]

    def joined(self, results: Sequence[Row]) -> SparseVectors:
        """Join texts, each with its largest weights."""
        return self._encoder.joined(results, self._top_k)


def _read(layout: SaeLayout) -> Autoencoder:
    from .networks.loading import read_tensors

    sizes = {"encoder_bias": layout.n_latents, "idf": layout.n_latents, "decoder_bias": layout.dim, "mean": layout.dim}
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(MATRICES, (layout.n_latents, layout.dim))
    shapes |= {name: (size,) for name, size in sizes.items()}
    tensors = read_tensors(layout.folder, shapes)
    wrong = [name for name, shape in shapes.items() if name not in tensors or tuple(tensors[name].shape) != shape]
    if wrong:
        raise RepresentationError(f"{layout.folder}: {', '.join(wrong)} not there, or of other shapes than config.json says")
    found = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    bad = [name for name, values in found.items() if not np.isfinite(values).all()]
    if bad or (found["idf"] < 0).any():
        raise RepresentationError(f"{layout.folder}: {', '.join(bad) or 'idf'}: numbers must be finite, and idf not below 0")
    shift = layout.scale * found["mean"] + found["decoder_bias"]
    return Autoencoder(
        weights=np.ascontiguousarray(layout.scale * found["encoder"].T),
        biases=found["encoder_bias"] - found["encoder"] @ shift,
        idf=found["idf"],
    )
