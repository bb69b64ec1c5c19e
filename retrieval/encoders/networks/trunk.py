"""Trunks: transformers without their heads, shared by all encoders of the process that stand on the same weights.

Two checkpoints have one trunk when their transformers have equal tensors and settings and run on one device in one precision.
The second one then uses the first one's network, and `..shared_pass` runs it once for both.

A text's states never depend on the texts beside it. Texts of several lengths are padded to one batch only for networks that
leave masked tokens out (`MASKING`); for every other one, texts of one length make a batch, without padding.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from ....index.errors import RepresentationError
from .loading import VOLATILE, place

if TYPE_CHECKING:
    import torch

# Settings of a BERT that its computation depends on; of other architectures all of them are compared.
BERT_SETTINGS = (
    "model_type", "hidden_act", "hidden_size", "intermediate_size", "is_decoder", "layer_norm_eps", "num_attention_heads",
    "num_hidden_layers", "pad_token_id", "position_embedding_type",
)  # fmt: skip
# Families of which a text that is padded, or beside another one, has the states that it has alone.
MASKING = frozenset({
    "albert", "bert", "camembert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "modernbert",
    "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl",
})  # fmt: skip
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

    Attributes
    ----------
    masks : bool
        Whether tokens that are not attended to change no other token's state.

    Raises
    ------
    RepresentationError
        As `.loading.place`; or the network does not run on token ids alone, or gives other states the second time.
    """

    def __init__(self, network: Any, folder: Path, *, device: str, dtype: str) -> None:
        import torch

        self.masks = network.config.model_type in MASKING
        if not self.masks:
            check_runs(network, folder)
        self._network, self._in_integers = place(network, folder, device=device, dtype=dtype), dtype == "int8"
        self.device = torch.device(device)
        self._padding_id = network.config.pad_token_id or 0

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return int(self._network.config.hidden_size)

    def states(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Last hidden states of each text's tokens, (n_tokens, hidden) each, whatever texts are beside it."""
        import torch

        states = [torch.zeros(0, self.width, device=self.device) for _ in rows]
        with torch.inference_mode():
            if self._in_integers:  # a text at a time
                found = self._network.states([row.ids for row in rows], [row.n_attended for row in rows])
                return [torch.from_numpy(each) for each in found]
            for numbers in batches_alike(rows, padded=self.masks):
                ids, mask = padded([rows[i] for i in numbers], self._padding_id)
                hidden = self._network(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
                for i, each in zip(numbers, hidden, strict=True):
                    states[i] = each[: len(rows[i].ids)]
        return states


def batches_alike(rows: Sequence[Row], *, padded: bool) -> list[list[int]]:
    """Numbers of the rows that run together: all that have tokens, or, unless they are padded, those of one length."""
    groups: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        if row.ids:
            groups.setdefault(0 if padded else len(row.ids), []).append(i)
    return list(groups.values())


def padded(rows: Sequence[Row], padding_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of texts as a network takes them, and which are attended to: two (n_texts, longest) int64."""
    import torch

    ids = torch.full((len(rows), max(len(row.ids) for row in rows)), padding_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        mask[i, : row.n_attended] = 1
    return ids, mask


def check_runs(network: Any, folder: Path) -> None:
    """Try a network of a family that is not known on a few tokens, in float32.

    Raises
    ------
    RepresentationError
        It wants more than token ids, or its outputs are random.
    """
    import torch

    ids = torch.arange(2, min(10, network.config.vocab_size))[None]
    try:
        with torch.inference_mode():
            first, second = (network(input_ids=ids, attention_mask=torch.ones_like(ids))[0] for _ in range(2))
    except Exception as error:  # a network raises what it likes
        raise RepresentationError(f"{folder}: {type(network).__name__} does not run on token ids alone: {error}") from error
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5):
        raise RepresentationError(f"{folder}: {type(network).__name__} gives a text other states each time it is run")


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
