"""Masked language models as term weighers, and the one place that loads networks with transformers, when used.

Logits ``W`` of shape (positions, n_terms) become the weights of one text (SPLADE v1: arXiv 2107.05720,
v2: 2109.10086; the double logarithm: 2504.14839)::

    sum    w_j = sum_i  f(W_ij)          f(x) = log1p(relu(x))  or  log1p(log1p(relu(x)))
    max    w_j = f(max_i W_ij)           f rises, so one logarithm a term does

or, of each position i by itself, the k largest f(W_ij) (SLIM: 2302.06587).

The decoder is much the largest layer of a small model. It is taken off the network and applied to a block of
terms at a time, over the real tokens of a batch laid end to end: no (batch, positions, n_terms) array exists,
padding costs nothing, and a block stays in cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ...index.errors import MissingDependencyError, RepresentationError
from ...index.representations import Floats
from .layouts import Activation, Pooling

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

Dtype = Literal["float32", "bfloat16"]

LOGITS_PER_BLOCK = {"cpu": 1 << 21}  # 8 MB, about a core's cache; other devices want few, large launches
LOGITS_PER_BLOCK_ELSEWHERE = 1 << 26
MIN_TERMS_PER_BLOCK = 64  # 256 MB of logits would take a million tokens in one batch
# Keys of config.json that say who wrote it, not what it computes.
VOLATILE = (
    "_name_or_path",
    "dtype",
    "output_hidden_states",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)


class MaskedLanguageModel:
    """A loaded ``*ForMaskedLM`` checkpoint.

    Parameters
    ----------
    folder : Path
        config.json and safetensors (or an old pytorch_model.bin, read without unpickling code).
    device : str
        As torch names it.
    dtype : {"float32", "bfloat16"}
        Of weights and activations; pooling is float32 always.

    Raises
    ------
    RepresentationError
        When the folder lacks weights, leaves any parameter at random, needs code of its own, or computes its
        logits in a way that cannot be cut into blocks.
    MissingDependencyError
        Without torch and transformers.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: Dtype = "float32") -> None:
        network = load_network(folder, "AutoModelForMaskedLM", hint="is this a model without its MLM head?")
        import torch

        self._decoder = _split_decoder(folder, network)
        self.n_terms = self._decoder.out_features
        self._network = network.to(device=device, dtype=getattr(torch, dtype))
        self._decoder = self._decoder.to(device=device, dtype=getattr(torch, dtype))
        self._device = torch.device(device)
        self._padding_id = network.config.pad_token_id or 0

    def term_weights(self, ids: Sequence[Sequence[int]], *, pooling: Pooling, activation: Activation) -> Floats:
        """Weights of all terms for a batch of texts.

        Parameters
        ----------
        ids : sequence of sequence of int
            Token ids of each text, special tokens included; a text without tokens gets zeros.

        Returns
        -------
        (n_texts, n_terms) float32
            All >= 0.
        """
        import torch

        with torch.inference_mode():
            lengths = [len(row) for row in ids]
            pooled = torch.zeros(len(ids), self.n_terms, device=self._device)
            if sum(lengths) == 0:
                return _as_floats(pooled)
            features = self._features(ids)
            ends = list(accumulate(lengths))
            for block in self._blocks(len(features)):
                logits = self._logits(features, block)
                if pooling == "sum":
                    logits = _activate(logits.float(), activation)
                for row, end, length in zip(pooled, ends, lengths, strict=True):
                    if length:
                        positions = logits[end - length : end]
                        row[block] = positions.sum(0) if pooling == "sum" else positions.amax(0)
            return _as_floats(pooled if pooling == "sum" else _activate(pooled, activation))

    def top_terms(
        self, ids: Sequence[Sequence[int]], k: int, *, n_dropped: int = 0
    ) -> tuple[npt.NDArray[np.int64], Floats]:  # fmt: skip
        """Weigh each position by itself: its ``k`` largest weights ``log1p(relu(logit))``.

        Parameters
        ----------
        ids : sequence of sequence of int
            Token ids of each text, special tokens included.
        k : int
            Terms of a position.
        n_dropped : int
            Leading positions of each text that are left out.

        Returns
        -------
        terms, weights : (positions, min(k, n_terms)) int64 and float32
            Of all texts end to end, weights descending; a weight of 0 stands for no term.
        """
        import torch

        with torch.inference_mode():
            kept = [i >= n_dropped for row in ids for i in range(len(row))]
            k = min(k, self.n_terms)
            best = torch.zeros(sum(kept), k, device=self._device)
            terms = torch.zeros(sum(kept), k, dtype=torch.long, device=self._device)
            if not any(kept):
                return terms.cpu().numpy(), _as_floats(best)
            features = self._features(ids)[torch.tensor(kept, device=self._device)]
            for block in self._blocks(len(features)):
                logits = self._logits(features, block).float()
                # Few positions have a logit > 0 that is among their best in a given block: sorting is for those alone.
                (risen,) = torch.nonzero(logits.amax(1) > best[:, -1], as_tuple=True)
                best[risen], at = torch.cat([best[risen], logits[risen]], 1).topk(k, dim=1)
                before = terms[risen].gather(1, at.clamp(max=k - 1))
                terms[risen] = torch.where(at < k, before, at - k + block.start)
            return np.asarray(terms.cpu().numpy(), np.int64), _as_floats(_activate(best, "relu"))

    def _blocks(self, n_positions: int) -> Iterator[slice]:
        """Cut the terms into blocks, whose logits are about as many as suit the device."""
        budget = LOGITS_PER_BLOCK.get(self._device.type, LOGITS_PER_BLOCK_ELSEWHERE)
        step = max(MIN_TERMS_PER_BLOCK, budget // max(1, n_positions))
        for first in range(0, self.n_terms, step):
            yield slice(first, min(first + step, self.n_terms))

    def _features(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return what the decoder sees: (tokens of all texts end to end, hidden), padding left out."""
        import torch

        padded = torch.full((len(ids), max(map(len, ids))), self._padding_id)
        mask = torch.zeros_like(padded)
        for i, row in enumerate(ids):
            padded[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[i, : len(row)] = 1
        padded, mask = padded.to(self._device), mask.to(self._device)
        features: torch.Tensor = self._network(input_ids=padded, attention_mask=mask).logits
        return features[mask.bool()]

    def _logits(self, features: torch.Tensor, block: slice) -> torch.Tensor:
        import torch

        bias = None if self._decoder.bias is None else self._decoder.bias[block]
        return torch.nn.functional.linear(features, self._decoder.weight[block], bias)


def weights_digest(folder: Path) -> str:
    """Hash of the weight files and of what config.json says about the computation.

    Raises
    ------
    RepresentationError
        When the folder holds no weights.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps({k: v for k, v in config.items() if k not in VOLATILE}, sort_keys=True).encode())
    for path in weight_files(folder):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Files that hold the weights: one, or the shards that an index names; safetensors before .bin.

    Raises
    ------
    RepresentationError
        When there are none.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            index = json.loads((folder / f"{name}.index.json").read_text(encoding="utf-8"))
            return [folder / shard for shard in sorted(set(index["weight_map"].values()))]
    raise RepresentationError(f"{folder}: no weights: expected model.safetensors (or an old pytorch_model.bin)")


def load_network(folder: Path, auto_class: str, *, unused: str | None = None, hint: str) -> Any:
    """Read a network in float32, and make sure that every parameter came from the file.

    Parameters
    ----------
    folder : Path
        As :class:`MaskedLanguageModel` takes it.
    auto_class : str
        Name of the transformers class that picks the architecture.
    unused : str or None
        Parameters of this prefix are not used, and may be absent.
    hint : str
        What to say of a checkpoint that lacks parameters.

    Raises
    ------
    RepresentationError, MissingDependencyError
        As of :class:`MaskedLanguageModel`.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingDependencyError("torch and transformers", "encode", "a neural encoder") from error
    weight_files(folder)
    try:
        with _quietly():
            network, info = getattr(transformers, auto_class).from_pretrained(
                str(folder), dtype=torch.float32, local_files_only=True, trust_remote_code=False,
                weights_only=True, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # transformers, torch and safetensors raise a dozen unrelated kinds here
        raise RepresentationError(f"{folder}: cannot load the network: {error}") from error
    absent = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    absent = [name for name in absent if unused is None or not name.startswith(unused)]
    if absent:
        raise RepresentationError(
            f"{folder}: the weights lack {len(absent)} parameters of {type(network).__name__} "
            f"({', '.join(absent[:3])}...), which would stay random: {hint}"
        )
    return network.eval()


@contextmanager
def _quietly() -> Iterator[None]:
    from transformers.utils import logging

    bars: Any = logging  # untyped
    shown, verbosity = bars.is_progress_bar_enabled(), bars.get_verbosity()
    bars.disable_progress_bar()
    bars.set_verbosity_error()  # what is missing or unexpected is told by `load_network`, once and as an error
    try:
        yield
    finally:
        bars.set_verbosity(verbosity)
        if shown:
            bars.enable_progress_bar()


def _split_decoder(folder: Path, network: Any) -> torch.nn.Linear:
    """Take the last linear layer off, so that the network's ``logits`` are what the layer used to see.

    The two halves are tried on a few tokens: an architecture that does more after the layer is refused.
    """
    import torch

    decoder = network.get_output_embeddings()
    name = next((name for name, module in network.named_modules() if module is decoder), "")
    if not isinstance(decoder, torch.nn.Linear) or not name:
        raise RepresentationError(f"{folder}: {type(network).__name__} has no linear layer over the vocabulary")
    with torch.inference_mode():
        ids = torch.arange(min(8, decoder.out_features))[None]
        whole = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        network.set_submodule(name, torch.nn.Identity())
        halves = decoder(network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits)
    if whole.shape != halves.shape or not torch.allclose(whole, halves, rtol=1e-3, atol=1e-3):
        raise RepresentationError(f"{folder}: {type(network).__name__} does not end in its vocabulary layer")
    return decoder


def _activate(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    weights = logits.relu_().log1p_()
    return weights.log1p_() if activation == "log1p_relu" else weights


def _as_floats(pooled: torch.Tensor) -> Floats:
    return np.asarray(pooled.cpu().numpy(), np.float32)
