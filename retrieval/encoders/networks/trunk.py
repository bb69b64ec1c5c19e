"""Trunks: transformers without their heads, shared by all encoders of the process that stand on the same weights.

Two checkpoints have one trunk when their transformers have equal tensors and settings and run on one device in one precision.
The second one then uses the first one's network, and `..shared_pass` runs it once for both.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from .loading import VOLATILE, place

if TYPE_CHECKING:
    import torch

# Settings of a BERT that its computation depends on; of other architectures all of them are compared.
BERT_SETTINGS = (
    "model_type", "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "num_attention_heads",
    "num_hidden_layers", "pad_token_id", "position_embedding_type",
)  # fmt: skip
_lock = threading.Lock()
_trunks: WeakValueDictionary[tuple[str, str, str], Trunk] = WeakValueDictionary()


class Row(NamedTuple):
    """One text for a trunk.

    Attributes
    ----------
    ids : tuple of int
        Token ids, special tokens included.
    n_attended : int
        How many of the first tokens others see; those after them see, but are not seen.
    """

    ids: tuple[int, ...]
    n_attended: int


class Trunk:
    """A transformer on its device, in its precision.

    Parameters
    ----------
    network : transformers model
        Without head, in float32.
    folder : Path
        Where it is from, for messages.
    device, dtype : str
        See `.loading.place`.
    """

    def __init__(self, network: Any, folder: Path, *, device: str, dtype: str) -> None:
        import torch

        self._network = place(network, folder, device=device, dtype=dtype)
        self.device = torch.device(device)
        self._padding_id = network.config.pad_token_id or 0

    def states(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Last hidden states of each text's tokens, (n_tokens, hidden) each; one padded batch."""
        import torch

        if not any(row.ids for row in rows):
            hidden = self._network.config.hidden_size
            return [torch.zeros(0, hidden, device=self.device) for _ in rows]
        with torch.inference_mode():
            ids = torch.full((len(rows), max(len(row.ids) for row in rows)), self._padding_id)
            mask = torch.zeros_like(ids)
            for i, row in enumerate(rows):
                ids[i, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
                mask[i, : row.n_attended] = 1
            hidden = self._network(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
            return [hidden[i, : len(row.ids)] for i, row in enumerate(rows)]


def shared_trunk(network: Any, folder: Path, *, device: str, dtype: str) -> Trunk:
    """Return the trunk of a transformer, that of an earlier checkpoint where it is the same.

    Parameters
    ----------
    network : transformers model
        A transformer without head, in float32; it belongs to the trunk from here on.
    folder, device, dtype
        As `Trunk` takes them.

    Raises
    ------
    RepresentationError
        The precision is not for this network or device.
    """
    key = (_digest(network), device, dtype)
    with _lock:
        trunk = _trunks.get(key)
        if trunk is None:
            trunk = _trunks[key] = Trunk(network, folder, device=device, dtype=dtype)
        return trunk


def _digest(network: Any) -> str:
    """Hash of a transformer's tensors and settings; its pooler is never used."""
    settings: Mapping[str, Any] = network.config.to_dict()
    if settings.get("model_type") == "bert":
        kept = {name: getattr(network.config, name, None) for name in BERT_SETTINGS}
    else:
        kept = {name: value for name, value in settings.items() if name not in VOLATILE}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("pooler."):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
