"""Linear layers after a trunk, as checkpoints of PyLate, Stanford and sentence-transformers have them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ....index.errors import RepresentationError
from ...encoders.checkpoints.colbert_layout import Projection
from ...encoders.networks.loading import read_tensors
from .folders import write_json


class ProjectionLayer(nn.Module):
    """``y = activation(x W' + b)``, plus ``x`` or ``x R'`` with a residual; tensors have the names of the files.

    Parameters
    ----------
    files : Projection
        What the layer is; its weights are at random.
    """

    def __init__(self, files: Projection) -> None:
        super().__init__()
        self.files = files
        self.linear = nn.Linear(files.in_features, files.out_features, bias=files.bias)
        self.activation: nn.Module = getattr(nn, files.activation)()
        if files.residual:
            square = files.in_features == files.out_features
            self.residual = nn.Identity() if square else nn.Linear(files.in_features, files.out_features, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        projected: Tensor = self.activation(self.linear(vectors))
        return projected + self.residual(vectors) if self.files.residual else projected

    def save(self, folder: Path, **names: str) -> None:
        """Write a Dense module; ``names`` are further settings, such as what it reads."""
        files = self.files
        stated = {
            "in_features": files.in_features, "out_features": files.out_features, "bias": files.bias,
            "activation_function": activation_name(files.activation),
        }  # fmt: skip
        residual = {"use_residual": True} if files.residual else {}
        write_json(folder / "config.json", {**stated, **residual, **names})
        save_file(self.tensors, folder / "model.safetensors", {"format": "pt"})

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Weights by their names in files."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}


def activation_name(activation: str) -> str:
    """Dotted name of an activation, as sentence-transformers writes it."""
    return "torch.nn.modules.linear.Identity" if activation == "Identity" else f"torch.nn.modules.activation.{activation}"


def read_projections(layers: tuple[Projection, ...]) -> nn.ModuleList:
    """The layers of a checkpoint, with their weights.

    Raises
    ------
    RepresentationError
        When weights are absent, or of other shapes than the settings say.
    """
    made = nn.ModuleList()
    for files in layers:
        layer = ProjectionLayer(files)
        wanted = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
        found = read_tensors(files.folder, wanted)
        wrong = [f"{name} {tuple(found[name].shape) if name in found else '(none)'} instead of {shape}"
                 for name, shape in wanted.items() if name not in found or tuple(found[name].shape) != shape]  # fmt: skip
        if wrong:
            raise RepresentationError(
                f"{files.folder}: the projection's weights are not what its settings say: {', '.join(wrong)}"
            )
        layer.load_state_dict({name: tensor.float() for name, tensor in found.items()})
        made.append(layer)
    return made


def linear_files(width: int, n_numbers: int, folder: Path) -> Projection:
    """A layer without bias and activation."""
    return Projection(folder=folder, in_features=width, out_features=n_numbers)


def orthonormal(layer: ProjectionLayer, seed: int) -> ProjectionLayer:
    """Start a layer as the identity where it is square, else as random orthonormal axes."""
    if layer.linear.in_features == layer.linear.out_features:
        nn.init.eye_(layer.linear.weight)
    else:
        nn.init.orthogonal_(layer.linear.weight, generator=torch.Generator().manual_seed(seed))
    return layer
