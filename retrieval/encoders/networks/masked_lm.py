"""Masked language models as term weighers.

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

import threading
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ....index.arrays import Floats
from ....index.errors import RepresentationError
from ...models import is_shipped
from ..checkpoints.splade import Activation, Pooling
from .loading import load_network, place
from .trunk import MASKING, Row, Trunk, batches_alike, check_runs, padded, shared_trunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from .integer_bert import IntegerVocabulary

Dtype = Literal["float32", "bfloat16", "int8"]

LOGITS_PER_BLOCK = {"cpu": 1 << 21}  # 8 MB, about a core's cache; other devices want few, large launches
LOGITS_PER_BLOCK_ELSEWHERE = 1 << 26
_HEAD_LOCK = threading.Lock()
MIN_TERMS_PER_BLOCK = 64  # 256 MB of logits would take a million tokens in one batch


class MaskedLanguageModel:
    """A loaded ``*ForMaskedLM`` checkpoint.

    Parameters
    ----------
    folder : Path
        As :func:`.networks.load_network` takes it.
    device : str
        As torch names it.
    dtype : {"float32", "bfloat16", "int8"}
        Of weights and activations, see `.networks.placed`; pooling is float32 always.

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

        self._masks = network.config.model_type in MASKING
        if not self._masks:
            check_runs(network, folder)
        self._decoder = _split_decoder(folder, network)
        self.n_terms = self._decoder.out_features
        self.trunk, self._network = _split_trunk(network, folder, device=device, dtype=dtype)
        """The transformer under the head; None where the two cannot be taken apart."""
        self._integers: IntegerVocabulary | None = None
        if dtype == "int8":
            from .integer_bert import IntegerVocabulary, check_vocabulary, probe_rows

            self._integers = IntegerVocabulary(self._decoder)
        else:
            self._decoder = self._decoder.to(device=device, dtype=getattr(torch, dtype))
        self._device = torch.device(device)
        self._padding_id = network.config.pad_token_id or 0
        if self._integers is not None and not is_shipped(folder):
            rows = probe_rows(network.config.vocab_size)
            with torch.inference_mode():
                check_vocabulary(self._decoder, self._integers, self._features(rows), list(map(len, rows)), folder)

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

        if not any(map(len, ids)):
            return np.zeros((len(ids), self.n_terms), np.float32)
        with torch.inference_mode():
            return self._pooled(self._features(ids), [len(row) for row in ids], pooling, activation)

    def weights_of(self, states: Sequence[torch.Tensor], *, pooling: Pooling, activation: Activation) -> Floats:
        """Weights of all terms for texts whose trunk states, (n_tokens, hidden) each, are known; as `term_weights`."""
        import torch

        if not any(map(len, states)):
            return np.zeros((len(states), self.n_terms), np.float32)
        with torch.inference_mode():
            return self._pooled(self._head(torch.cat(list(states))), [len(each) for each in states], pooling, activation)

    def _pooled(self, features: torch.Tensor, lengths: Sequence[int], pooling: Pooling, activation: Activation) -> Floats:
        import torch

        with torch.inference_mode():
            pooled = torch.zeros(len(lengths), self.n_terms, device=self._device)
            if self._integers is not None and pooling == "max":
                return _as_floats(_activate(self._integers.pooled(features, lengths), activation))
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

        rows = [Row(tuple(row), len(row)) for row in ids]
        if self.trunk is not None:
            return self._head(torch.cat(self.trunk.states(rows)))
        features: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        for numbers in batches_alike(rows, padded=self._masks):
            inputs, mask = (tensor.to(self._device) for tensor in padded([rows[i] for i in numbers], self._padding_id))
            for i, logits in zip(numbers, self._network(input_ids=inputs, attention_mask=mask).logits, strict=True):
                features[i] = logits[: len(rows[i].ids)]
        return torch.cat([each for each in features if len(each)])

    def _head(self, states: torch.Tensor) -> torch.Tensor:
        """Return what the decoder sees of trunk states (n_tokens, hidden)."""
        return _through_head(self._network, states)

    def _logits(self, features: torch.Tensor, block: slice) -> torch.Tensor:
        import torch

        bias = None if self._decoder.bias is None else self._decoder.bias[block]
        return torch.nn.functional.linear(features, self._decoder.weight[block], bias)


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


class _Given:
    """Makes the stub that stands for a trunk under its head: it returns the states that it was given."""

    @staticmethod
    def module(config: Any) -> torch.nn.Module:
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        class Stub(torch.nn.Module):
            states: torch.Tensor | None = None

            def __init__(self) -> None:
                super().__init__()
                self.config = config

            def forward(self, *_: Any, **__: Any) -> Any:
                return BaseModelOutput(last_hidden_state=self.states)

        return Stub()


def _through_head(network: Any, states: torch.Tensor) -> torch.Tensor:
    """Run a head, whose trunk was replaced by a stub, on states (n_tokens, hidden); one call at a time."""
    import torch

    ids = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
    dtype = next(network.parameters()).dtype
    with _HEAD_LOCK:
        stub = getattr(network, network.base_model_prefix)
        stub.states = states.to(dtype)[None]
        features: torch.Tensor = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        stub.states = None
    return features


def _split_trunk(network: Any, folder: Path, *, device: str, dtype: Dtype) -> tuple[Trunk | None, Any]:
    """Take the transformer from under its head; returns both, or None and the whole network where they do not come apart."""
    import torch

    trunk, prefix = network.base_model, network.base_model_prefix
    if trunk is network or not hasattr(network, prefix):
        return None, place(network, folder, device=device, dtype=dtype)
    ids = torch.arange(min(8, network.config.vocab_size))[None]
    with torch.inference_mode():
        whole = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        states = trunk(input_ids=ids, attention_mask=torch.ones_like(ids))[0][0]
        setattr(network, prefix, _Given.module(network.config))
        try:
            halves = _through_head(network, states)
            fits = whole.shape == halves.shape and torch.allclose(whole, halves, rtol=1e-4, atol=1e-4)
        except Exception:  # a head that wants more of its trunk than the last states raises what it likes
            fits = False
    if not fits:
        setattr(network, prefix, trunk)
        return None, place(network, folder, device=device, dtype=dtype)
    shared = shared_trunk(trunk, folder, device=device, dtype=dtype)
    kind = torch.float32 if dtype == "int8" else getattr(torch, dtype)
    return shared, network.to(device=device, dtype=kind)


def _activate(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    weights = logits.relu_().log1p_()
    return weights.log1p_() if activation == "log1p_relu" else weights


def _as_floats(pooled: torch.Tensor) -> Floats:
    return np.asarray(pooled.cpu().numpy(), np.float32)
