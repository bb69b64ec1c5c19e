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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ....index.arrays import Floats
from ....index.errors import RepresentationError
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
        tensors = checked_tensors(layout)
        prefixes = [QUERY + TRANSFORMER, *([] if layout.shared else [PASSAGE + TRANSFORMER])]
        networks = [bert_of(layout, part_of(tensors, prefix)) for prefix in prefixes]
        trunks = [shared_trunk(network, layout.folder, device=device, dtype=dtype) for network in networks]
        self.query_trunk, self.document_trunk = trunks[0], trunks[-1]
        self._generators = generators_of(
            {name: tensor.float().to(device) for name, tensor in part_of(tensors, QUERY).items()}, layout.sizes
        )

    def nets_of(self, states: Sequence[torch.Tensor]) -> Floats:
        """Numbers of each text's network, (n_texts, n_numbers) float32 as in `QueryNets`; states are (n_tokens, hidden)."""
        import torch

        with torch.inference_mode():
            nets: Floats = torch.stack([numbers_of(self._generators, each.float()) for each in states]).cpu().numpy()
        return nets

    def vectors_of(self, states: Sequence[torch.Tensor]) -> Floats:
        """State of each text's first token, (n_texts, hidden) float32, as it is."""
        import torch

        vectors: Floats = torch.stack([each[0].float() for each in states]).cpu().numpy()
        return vectors


def generators_of(head: Tensors, sizes: Sequence[int]) -> list[Generator]:
    """Generators of the matrices, that of the output last, then of the biases; ``head`` has names after ``query_encoder.``."""
    kinds = [("weight", "hyper_base_matrices", i) for i in range(len(matrix_shapes(sizes)))]
    kinds += [("bias", "hyper_base_vectors", i) for i in range(len(sizes) - 1)]

    def pair(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return head[f"{name}.weight"], head[f"{name}.bias"]

    return [
        Generator(
            rows=head[f"{kind}_query_embeddings.{i}"][0],
            base=head[f"{base}.{i}"].flatten(0, -2),
            key=pair(f"key_projections.{number}"),
            value=pair(f"value_projections.{number}"),
            projection=pair(f"{kind}_hyper_projection.{i}"),
        )
        for number, (kind, base, i) in enumerate(kinds)
    ]


def numbers_of(generators: Sequence[Generator], states: torch.Tensor) -> torch.Tensor:
    """Numbers (n_numbers,) of the network of one text with the states (n_tokens, hidden), in the order of `QueryNets`."""
    import torch

    made = [generator.made(states).flatten() for generator in generators]
    n_layers = len(made) // 2
    layers = [part for pair in zip(made[:n_layers], made[n_layers + 1 :], strict=True) for part in pair]
    return torch.cat([*layers, made[n_layers]])


def checked_tensors(layout: HypencoderLayout) -> dict[str, torch.Tensor]:
    """Read the tensors of a Hypencoder, by their published names; errors are those of `HypencoderNetwork`."""
    check_libraries()
    root, tensors = layout.folder, dict(read_tensors(layout.folder))
    shapes = {QUERY + name: shape for name, shape in weight_shapes(layout.sizes, layout.transformer["hidden_size"]).items()}
    towers = [QUERY + TRANSFORMER, PASSAGE + TRANSFORMER]
    copied = any(name.startswith(towers[1]) for name in tensors)  # safetensors leaves out a copy that shares its memory
    for prefix in towers if copied or not layout.shared else towers[:1]:
        shapes |= {prefix + name: shape for name, shape in _bert_shapes(layout).items()}
    _check_tensors(root, tensors, shapes, towers)
    if copied and layout.shared:
        _check_copies(root, *(part_of(tensors, prefix) for prefix in towers))
    return {name: tensors[name] for name in shapes}


def part_of(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    """Tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


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


def _check_copies(root: Path, queries: Tensors, passages: Tensors) -> None:
    """Refuse a shared BERT that is not the same for both sides."""
    other = [name for name, tensor in passages.items() if name in queries and not tensor.equal(queries[name])]
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


def bert_of(layout: HypencoderLayout, tensors: dict[str, torch.Tensor]) -> Any:
    """Make a BERT, without pooler, of `checked_tensors` after their prefix, in float32."""
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
