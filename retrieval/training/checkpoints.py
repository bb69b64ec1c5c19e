"""Where a run stands, on disk: safetensors and JSON, written so that a kill at any moment leaves a whole one.

::

    checkpoints/step-00001000/  weights.safetensors    trained parameters by name
                                optimizer.safetensors  "exp_avg/NAME", "exp_avg_sq/NAME", "step/NAME"
                                state.json             written last: a folder without it is half a checkpoint
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ...index.errors import StorageError


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name; a tied one once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, keep: int = 1
) -> None:
    """Write a checkpoint for ``state["step"]`` into ``folder`` and remove all but the newest ``keep``."""
    place = folder / f"step-{state['step']:08d}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    parameters = trained(model)
    save_file({name: parameter.detach().contiguous() for name, parameter in parameters.items()}, place / "weights.safetensors")
    moments = {
        f"{kind}/{name}": tensor.contiguous()
        for name, parameter in parameters.items()
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }
    save_file(moments, place / "optimizer.safetensors")
    for name in ("weights.safetensors", "optimizer.safetensors"):
        with (place / name).open("rb") as file:
            os.fsync(file.fileno())
    whole = place / "state.json.part"
    whole.write_text(json.dumps(state, indent=2), encoding="utf-8")
    whole.replace(place / "state.json")
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Put the newest whole checkpoint into model and optimizer, and return its state; None when there is none.

    Raises
    ------
    StorageError
        When it cannot be read, or is of another student.
    """
    places = [place for place in sorted(folder.glob("step-*")) if (place / "state.json").is_file()]
    if not places:
        return None
    place, parameters = places[-1], trained(model)
    try:
        state: dict[str, Any] = json.loads((place / "state.json").read_text(encoding="utf-8"))
        weights, moments = load_file(place / "weights.safetensors"), load_file(place / "optimizer.safetensors")
        if {name: tensor.shape for name, tensor in weights.items()} != {n: p.shape for n, p in parameters.items()}:
            raise StorageError(f"{place}: a checkpoint of another student: choose another folder, or remove it")
    except (OSError, ValueError) as error:
        raise StorageError(f"{place}: cannot read the checkpoint: {error}; remove it to start anew") from error
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
            kinds = [kind for kind in ("exp_avg", "exp_avg_sq", "step") if f"{kind}/{name}" in moments]
            if kinds:
                optimizer.state[parameter] = {
                    # AdamW wants its step counter on the CPU
                    kind: moments[f"{kind}/{name}"].to("cpu" if kind == "step" else parameter.device)
                    for kind in kinds
                }
    return state
