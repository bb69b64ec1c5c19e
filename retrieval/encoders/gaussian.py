"""Multivariate representations: each text is a normal distribution with a diagonal covariance (MRL, arXiv 2304.14522).

A linear layer makes the mean of the state of [CLS], another one, through a softplus, the variances of the state of the token
after it; or both read the mean of all states. The score is ``-KL(query || document)``, written as an inner product, so that
a dense field holds the documents::

    query     1/2 (1, v + m^2, m)                              m, v: mean and variances, (n_dims,) each
    document  (-sum(log v + m^2 / v), -1 / v, 2 m / v)
    score     their product + 1/2 (sum(log v of the query) + n_dims)

That is a correction of the paper's form, which took products of variances for sums (reproduction: TMLR 2025). Numbers of a
document differ in scale by orders of magnitude, so each is standardised by a mean (``centre``) and a deviation (``spread``)
over training documents. The query makes up for it: products stay equal. What depends on the query alone is one more number,
beside a 1 in every document. So vectors have ``2 n_dims + 2`` numbers, and the score of a field is -KL itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...index.arguments import texts_of
from ...index.arrays import Floats
from ...index.errors import RepresentationError
from .base import Side
from .checkpoints.gaussian import GaussianLayout
from .dense import DenseConfig, DenseEncoder, DenseNetwork
from .tower import check_choices

if TYPE_CHECKING:
    import torch

    from .networks.masked_lm import Dtype

MIN_VARIANCE = 1e-6
"""Smaller variances count as this one: documents of no variance would be infinitely far from every query."""
Doubles = npt.NDArray[np.float64]


class Distributions(NamedTuple):
    """Normal distributions with diagonal covariances.

    Attributes
    ----------
    mean, variance : (n, n_dims) float64
        Variances are at least `MIN_VARIANCE`.
    """

    mean: Doubles
    variance: Doubles


class Standard(NamedTuple):
    """What a document's numbers are standardised by, (2 n_dims + 1,) float64 each; ``spread`` is above 0."""

    centre: Doubles
    spread: Doubles


def raw_document_vectors(documents: Distributions) -> Doubles:
    """Document side of the inner product, (n, 2 n_dims + 1) float64, before it is standardised."""
    mean, variance = documents
    prior = (np.log(variance) + mean**2 / variance).sum(1, keepdims=True)
    return np.concatenate([-prior, -1 / variance, 2 * mean / variance], axis=1)


def document_vectors(documents: Distributions, standard: Standard) -> Floats:
    """Vectors of documents, (n, 2 n_dims + 2) float32."""
    raw = (raw_document_vectors(documents) - standard.centre) / standard.spread
    return np.concatenate([raw, np.ones((len(raw), 1))], axis=1).astype(np.float32)


def query_vectors(queries: Distributions, standard: Standard) -> Floats:
    """Vectors of queries, (n, 2 n_dims + 2) float32, whose products with those of documents are -KL(query || document)."""
    mean, variance = queries
    raw = np.concatenate([np.ones((len(mean), 1)), variance + mean**2, mean], axis=1) / 2
    rest = raw @ standard.centre + (np.log(variance).sum(1) + mean.shape[1]) / 2
    return np.concatenate([raw * standard.spread, rest[:, None]], axis=1).astype(np.float32)


def states_read(states: Sequence[torch.Tensor], pooling: str, variance_at: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the layers for means and for variances read of trunk states, (n, hidden) float32 each; see `GaussianLayout.text`."""
    import torch

    if pooling == "mean":
        averages = torch.stack([each.float().mean(0) for each in states])
        return averages, averages
    return torch.stack([each[0].float() for each in states]), torch.stack([each[variance_at].float() for each in states])


@dataclass(frozen=True, kw_only=True)
class GaussianConfig:
    """What a user may choose; None leaves the checkpoint's choice.

    Attributes
    ----------
    model : str
        Folder of the model.
    document_length, query_length : int
        Tokens of a text that are read, special tokens included.
    dtype : {"float32", "bfloat16", "int8"}
        Of the transformer; what comes after it is float32 always.
    """

    model: str
    document_length: int | None = None
    query_length: int | None = None
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)


class GaussianEncoder(DenseEncoder):
    """Encodes texts as normal distributions, and these as vectors; the weights are read at the first text.

    Parameters and errors are those of `DenseEncoder`.
    """

    kind = "gaussian"

    def __init__(self, config: GaussianConfig, layout: GaussianLayout, *, device: str, batch_size: int) -> None:
        super().__init__(DenseConfig(**asdict(config)), layout.text, device=device, batch_size=batch_size)
        self._gaussian = layout
        tokens = {layout.text.document_prompt, layout.text.query_prompt}
        if unknown := [token for token in tokens if self.wordpieces.token_id(token) is None]:
            raise RepresentationError(f"{layout.head}: {unknown[0]!r} is no token of the tokenizer")
        self.wordpieces.add_specials(sorted(tokens))

    def load(self) -> GaussianNetwork:
        """Read the weights, once; raises RepresentationError as `DenseEncoder.load` does."""
        network = super().load()
        assert isinstance(network, GaussianNetwork)  # noqa: S101 - `_new_network` made it
        return network

    def query_uncertainty(self, texts: Sequence[str]) -> Floats:
        """Length of each query's variances, (n,) float32: larger where the model is less sure of what is asked.

        The paper finds it to go with the difficulty of queries (Pearson .27); the reproduction does not. Take it as a hint at
        most.
        """
        network, rows = self.load(), self.query_side.rows(texts_of(texts))
        if not rows:
            return np.empty(0, np.float32)
        found = network.distributions(network.trunk.states([each.row for each in rows]))
        lengths: Floats = np.linalg.norm(found.variance, axis=1).astype(np.float32)
        return lengths

    def _facts(self) -> dict[str, Any]:
        from .networks.loading import weights_digest

        return {**super()._facts(), "head": weights_digest(self._gaussian.head)}  # with its config.json

    def _new_network(self) -> GaussianNetwork:
        return GaussianNetwork(self._gaussian, len(self.wordpieces.head), device=self._device, dtype=self._config.dtype)


class GaussianNetwork(DenseNetwork):
    """A loaded transformer and the two layers after it.

    Parameters
    ----------
    layout : GaussianLayout
    variance_at : int
        Which token's state gives the variances, where the pooling is "cls".
    device, dtype : str
    """

    def __init__(self, layout: GaussianLayout, variance_at: int, *, device: str, dtype: Dtype) -> None:
        from .networks.loading import read_tensors

        super().__init__(layout.text, device=device, dtype=dtype)
        hidden, n_dims = self.trunk.width, layout.n_dims
        shapes = {
            "mean.weight": (n_dims, hidden), "variance.weight": (n_dims, hidden),
            "centre": (2 * n_dims + 1,), "spread": (2 * n_dims + 1,),
        }  # fmt: skip
        found = read_tensors(layout.head)
        shapes_found = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if shapes_found != shapes:
            raise RepresentationError(f"{layout.head}: found tensors of shapes {shapes_found}; config.json says {shapes}")
        self._mean, self._variance = (found[f"{name}.weight"].float().to(device) for name in ("mean", "variance"))
        self._standard = Standard(*(found[name].double().numpy() for name in ("centre", "spread")))
        if not all(np.isfinite(each).all() for each in self._standard) or self._standard.spread.min() <= 0:
            raise RepresentationError(f"{layout.head}: centre and spread must be finite, and spread above 0")
        self._beta, self._at, self._pooling = layout.beta, variance_at, layout.text.pooling

    def distributions(self, states: Sequence[torch.Tensor]) -> Distributions:
        """Distributions of texts whose trunk states, (n_tokens, hidden) each, are known."""
        import torch

        with torch.inference_mode():
            for_means, for_variances = states_read(states, self._pooling, self._at)
            means, activations = for_means @ self._mean.T, for_variances @ self._variance.T
            variances = torch.nn.functional.softplus(activations.double(), beta=self._beta).clamp_min(MIN_VARIANCE)
            return Distributions(means.double().cpu().numpy(), variances.cpu().numpy())

    def vectors_of(self, states: Sequence[torch.Tensor], side: Side) -> Floats:
        """Vectors (n_texts, dim) float32 of texts whose trunk states are known."""
        make = document_vectors if side == "document" else query_vectors
        return make(self.distributions(states), self._standard)
