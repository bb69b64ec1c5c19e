"""The network of a Hypencoder: a BERT, and the head that makes a network of a query's states (arXiv 2502.05364, section 3).

Every matrix of a query's network, and every bias, is made alike from the query's states H (n_tokens, hidden). With learned
rows A (out, in), keys K = H W_K + b_K and values V = H W_V + b_V, both (n_tokens, in)::

    C = softmax(A K^T / sqrt(out)) V        attention over the query's tokens
    M = layer_norm(relu(C)) P + b_P + B     P (in, in), B (out, in); layer_norm over each row, without weights, eps 1e-5

The published weights go with the scale sqrt(out), which is 1 for biases and for the output's weights; the paper writes one for
all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ....index.arrays import Floats
from ....index.errors import RepresentationError
from ....index.representations.nets import QueryNets
from ..checkpoints.hypencoder import PASSAGE, QUERY, TRANSFORMER, HypencoderLayout, matrix_shapes, weight_shapes
from .loading import BUFFERS, check_libraries, quiet_transformers, read_tensors
from .trunk import shared_trunk

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, "torch.Tensor"]
N_NAMED = 3


class Generator(NamedTuple):
    """What makes one matrix (out, in) of a query's network; letters are those above."""

    rows: torch.Tensor
    base: torch.Tensor
    key: tuple[torch.Tensor, torch.Tensor]
    value: tuple[torch.Tensor, torch.Tensor]
    projection: tuple[torch.Tensor, torch.Tensor]

    def made(self, states: torch.Tensor) -> torch.Tensor:
        """Matrix (out, in) of a text with the states (n_tokens, hidden)."""
        from torch.nn.functional import layer_norm, linear

        keys, values = linear(states, *self.key), linear(states, *self.value)
        attention = (self.rows @ keys.T / math.sqrt(len(self.rows))).softmax(-1)
        context = (attention @ values).relu()
        return linear(layer_norm(context, context.shape[-1:]), *self.projection) + self.base


class HypencoderNetwork:
    """A loaded Hypencoder.

    Attributes
    ----------
    query_trunk, document_trunk : Trunk
        One where the sides share their BERT.

    Raises
    ------
    RepresentationError
        Tensors are missing, of another shape than config.json states, or belong to something else; the two copies of a shared
        BERT differ.
    MissingDependencyError
        Without torch and transformers.
    """

    def __init__(self, layout: HypencoderLayout, *, device: str, dtype: str) -> None:
        check_libraries()
        root, tensors = layout.folder, dict(read_tensors(layout.folder))
        shapes = {QUERY + name: shape for name, shape in weight_shapes(layout.sizes, layout.transformer["hidden_size"]).items()}
        towers = [QUERY + TRANSFORMER, PASSAGE + TRANSFORMER]
        copied = any(name.startswith(towers[1]) for name in tensors)  # safetensors leaves out a copy that shares its memory
        for prefix in towers if copied or not layout.shared else towers[:1]:
            shapes |= {prefix + name: shape for name, shape in _bert_shapes(layout).items()}
        _check_tensors(root, tensors, shapes, towers)
        names = [name.removeprefix(towers[0]) for name in shapes if name.startswith(towers[0])]
        if copied and layout.shared:
            _check_copies(root, tensors, names, towers)
        made = [_bert(layout, {name: tensors[prefix + name] for name in names}) for prefix in towers[: 2 - layout.shared]]
        trunks = [shared_trunk(network, root, device=device, dtype=dtype) for network in made]
        self.query_trunk, self.document_trunk = trunks[0], trunks[-1]
        self._sizes = layout.sizes
        self._generators = _generators({name: tensors[name].float().to(device) for name in shapes}, layout.sizes)

    def nets_of(self, states: Sequence[torch.Tensor]) -> Floats:
        """Numbers of each text's network, (n_texts, n_numbers) float32 as in `QueryNets`; states are (n_tokens, hidden)."""
        import torch

        n_matrices = len(self._sizes)
        nets = []
        with torch.inference_mode():
            for each in states:
                made = [generator.made(each.float()).cpu().numpy() for generator in self._generators]
                *matrices, outputs = (matrix[None] for matrix in made[:n_matrices])
                nets.append(QueryNets.of(matrices, made[n_matrices:], outputs[0]).numbers)
        return np.concatenate(nets)

    def vectors_of(self, states: Sequence[torch.Tensor]) -> Floats:
        """State of each text's first token, (n_texts, hidden) float32, as it is."""
        import torch

        vectors: Floats = torch.stack([each[0].float() for each in states]).cpu().numpy()
        return vectors


def _generators(tensors: Tensors, sizes: Sequence[int]) -> list[Generator]:
    """Generators of the matrices, that of the output last, then of the biases."""
    kinds = [("weight", "hyper_base_matrices", i) for i in range(len(matrix_shapes(sizes)))]
    kinds += [("bias", "hyper_base_vectors", i) for i in range(len(sizes) - 1)]

    def pair(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return tensors[f"{QUERY}{name}.weight"], tensors[f"{QUERY}{name}.bias"]

    return [
        Generator(
            rows=tensors[f"{QUERY}{kind}_query_embeddings.{i}"][0],
            base=tensors[f"{QUERY}{base}.{i}"].flatten(0, -2),
            key=pair(f"key_projections.{number}"),
            value=pair(f"value_projections.{number}"),
            projection=pair(f"{kind}_hyper_projection.{i}"),
        )
        for number, (kind, base, i) in enumerate(kinds)
    ]


def _check_tensors(root: Path, tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], towers: Sequence[str]) -> None:
    """Refuse weights that lack a tensor, have one too many, or one of another shape."""
    passed = tuple(f"{tower}pooler." for tower in towers)  # vectors are made of hidden states
    missing = [name for name in shapes if name not in tensors]
    more = [name for name in tensors if name not in shapes and not name.startswith(passed) and not name.endswith(BUFFERS)]
    wrong = [
        f"{name} {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in shapes.items() if name in tensors and tuple(tensors[name].shape) != shape
    ]  # fmt: skip
    for names, what in (
        (missing, "missing from the weights"), (more, "that no Hypencoder of these sizes has"),
        (wrong, "of other shapes than config.json states"),
    ):  # fmt: skip
        if names:
            raise RepresentationError(f"{root}: {len(names)} tensors {what}: {_some(names)}")


def _check_copies(root: Path, tensors: Tensors, names: Collection[str], towers: Sequence[str]) -> None:
    """Refuse a shared BERT that is not the same for both sides."""
    other = [name for name in names if not tensors[towers[0] + name].equal(tensors[towers[1] + name])]
    if other:
        raise RepresentationError(
            f"{root}: config.json states shared_encoder, and {len(other)} tensors of {PASSAGE} differ from those of {QUERY}: "
            f"{_some(other)}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:N_NAMED]) + (", ..." if len(names) > N_NAMED else "")


def _bert_shapes(layout: HypencoderLayout) -> dict[str, tuple[int, ...]]:
    """Tensors of the BERT, without its pooler."""
    import torch
    from transformers import BertModel

    with torch.device("meta"):
        network: Any = BertModel(_config(layout), add_pooling_layer=False)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if not name.endswith(BUFFERS)}


def _bert(layout: HypencoderLayout, tensors: dict[str, torch.Tensor]) -> Any:
    """Make a BERT of tensors that were checked, in float32."""
    import torch
    from transformers import BertModel

    model: Any = BertModel
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        made = model.from_pretrained(
            None, config=_config(layout), state_dict=tensors, add_pooling_layer=False, dtype=torch.float32
        )
    return made.eval()


def _config(layout: HypencoderLayout) -> Any:
    from transformers import BertConfig

    try:
        return BertConfig(**{name: value for name, value in layout.transformer.items() if name != "model_type"})
    except Exception as error:  # transformers raises several unrelated kinds here
        raise RepresentationError(f"{layout.folder}: transformers cannot make a BERT of these settings: {error}") from error
