"""Transformers as encoders of tokens: last hidden states, projected and brought to unit length (ColBERT, arXiv 2004.12832).

::

    E_i = y_i / |y_i|        y = P_n(... P_1(hidden))        P(x) = activation(x W' + b) [+ x R']

Projections are of the network's precision, float32 beside one in 8-bit integers; lengths are float32 always.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ....index.arrays import Floats
from ....index.errors import RepresentationError
from ..checkpoints.colbert_layout import ColbertLayout, Projection
from .loading import load_network, read_tensors
from .trunk import Row, shared_trunk

if TYPE_CHECKING:
    import torch

    from .masked_lm import Dtype


class TokenRow(NamedTuple):
    """One text for the network.

    Attributes
    ----------
    ids : list of int
        Token ids, special tokens included.
    n_attended : int
        Tokens that others see; those after them see, but are not seen.
    kept : list of bool
        Which tokens' vectors are wanted, as many as ids.
    """

    ids: list[int]
    n_attended: int
    kept: list[bool]

    @property
    def row(self) -> Row:
        """What the trunk reads."""
        return Row(tuple(self.ids), self.n_attended)


class TokenNetwork:
    """A loaded transformer with its projections.

    Parameters
    ----------
    layout : ColbertLayout
        Files.
    device : str
        As torch names it.
    dtype : {"float32", "bfloat16", "int8"}
        Of weights and activations, see `.networks.placed`.

    Raises
    ------
    RepresentationError
        When weights are absent, incomplete or of another size than the JSON files say.
    MissingDependencyError
        Without torch and transformers.
    """

    def __init__(self, layout: ColbertLayout, *, device: str, dtype: Dtype) -> None:
        # A pooler sees [CLS] alone and is not asked; masked language models come without one.
        network = load_network(layout.folder, "AutoModel", may_lack=["pooler."], hint="are these the weights of this network?")
        import torch

        kind = self._kind = torch.float32 if dtype == "int8" else getattr(torch, dtype)
        self.trunk = shared_trunk(network, layout.folder, device=device, dtype=dtype)
        self._projections = [(_read_projection(files, device, kind), files.activation) for files in layout.projections]

    def vectors(self, rows: Sequence[TokenRow]) -> list[Floats]:
        """Vectors of the kept tokens of each text, (n_kept, dim) float32 of unit length."""
        return self.vectors_of(self.trunk.states([row.row for row in rows]), rows)

    def vectors_of(self, states: Sequence[torch.Tensor], rows: Sequence[TokenRow]) -> list[Floats]:
        """Vectors of texts whose trunk states, (n_tokens, hidden) each, are known; as `vectors`."""
        import torch

        with torch.inference_mode():
            kept = torch.tensor([kept for row in rows for kept in row.kept], dtype=torch.bool, device=self.trunk.device)
            vectors = torch.cat(list(states))[kept].to(self._kind)
            for tensors, activation in self._projections:
                vectors = _project(vectors, tensors, activation)
            vectors = torch.nn.functional.normalize(vectors.float(), dim=-1)
            flat = np.asarray(vectors.cpu().numpy(), np.float32)
        return np.split(flat, list(accumulate(sum(row.kept) for row in rows))[:-1])


def _project(vectors: torch.Tensor, tensors: dict[str, torch.Tensor], activation: str) -> torch.Tensor:
    import torch

    projected: torch.Tensor = getattr(torch.nn, activation)()(
        torch.nn.functional.linear(vectors, tensors["linear.weight"], tensors.get("linear.bias"))
    )
    if "residual.weight" in tensors:
        projected = projected + torch.nn.functional.linear(vectors, tensors["residual.weight"])
    return projected


def _read_projection(files: Projection, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Tensors of one projection; a residual between vectors of one width has the identity for its matrix."""
    import torch

    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (files.out_features, files.in_features)}
    if files.bias:
        shapes["linear.bias"] = (files.out_features,)
    if files.residual and files.in_features != files.out_features:
        shapes["residual.weight"] = (files.out_features, files.in_features)
    found = read_tensors(files.folder, shapes)
    wrong = [f"{name} {tuple(found[name].shape) if name in found else '(none)'} instead of {shape}"
             for name, shape in shapes.items() if name not in found or tuple(found[name].shape) != shape]  # fmt: skip
    if wrong:
        raise RepresentationError(f"{files.folder}: the projection's weights are not what its settings say: {', '.join(wrong)}")
    if files.residual and files.in_features == files.out_features:
        found["residual.weight"] = torch.eye(files.in_features)
    return {name: tensor.to(device=device, dtype=dtype) for name, tensor in found.items()}
