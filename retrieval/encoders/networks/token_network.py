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
from .loading import load_network, placed, read_tensors

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

        kind = torch.float32 if dtype == "int8" else getattr(torch, dtype)
        self._network = placed(network, layout.folder, device=device, dtype=dtype)
        self._projections = [(_read_projection(files, device, kind), files.activation) for files in layout.projections]
        self._device = torch.device(device)
        self._padding_id = network.config.pad_token_id or 0

    def vectors(self, rows: Sequence[TokenRow]) -> list[Floats]:
        """Vectors of the kept tokens of each text, (n_kept, dim) float32 of unit length."""
        import torch

        with torch.inference_mode():
            width = max(len(row.ids) for row in rows)
            ids = torch.full((len(rows), width), self._padding_id)
            mask, kept = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
            for i, row in enumerate(rows):
                ids[i, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
                mask[i, : row.n_attended] = 1
                kept[i, : len(row.ids)] = torch.tensor(row.kept, dtype=torch.bool)
            hidden = self._network(input_ids=ids.to(self._device), attention_mask=mask.to(self._device)).last_hidden_state
            vectors = hidden[kept.to(self._device)]
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
