"""A BERT of transformers in 8-bit integers on the CPU: the same weights, faster (`..kernels.bert`).

Weights are rounded by a scale for each output; packed checkpoints hold such numbers already and lose nothing. It is fast where
the processor multiplies bytes. Activations have 8 bits, and 7 on processors with AVX2 alone, where that is half the work.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from ....index.arrays import Floats
from ....index.errors import RepresentationError
from ....index.kernels import read_only
from ....index.kernels.dot_emitters import ROW_BITS
from ....index.kernels.dot_products import LANES, SignedBytes, pack_lanes, tamed
from ...kernels.bert import OFFSET, Layers, Linear, layer_norm, pool_terms, run_layers
from ...models import is_shipped
from ...workers import Workers

LOGIT_MARGIN = 0.5
"""Terms whose largest logit in integers is not so far below zero are computed again in floats."""
AGREEMENT = 0.95
"""Cosine that every probed token's state must have with the one in floats. Models that come with lexmax have .99 and more."""
PROBE_LENGTHS = (3, 12)
TOGETHER = 128
"""Tokens of short texts that go through the layers together: more gain nothing, and leave the nearest caches."""

logger = logging.getLogger(__name__)


def in_integers(network: Any, folder: Path) -> Any:
    """Put an `IntegerBert` in the place of a network's transformer; returns the network.

    Whether 8 bits are enough is tried on a few tokens, but for models that come with lexmax, whose tests do it.

    Raises
    ------
    RepresentationError
        As `IntegerBert`; or its states are not near those in floats.
    """
    transformer = IntegerBert(network.base_model, folder)
    if not is_shipped(folder):
        _check_agreement(folder, "states of tokens", agreement(network.base_model, transformer))
    if network.base_model is network:
        return transformer
    setattr(network, network.base_model_prefix, transformer)
    return network


def _check_agreement(folder: Path, what: str, found: float) -> None:
    logger.info("%s: %s in 8-bit integers have a cosine of %.4f or more with those in float32", folder, what, found)
    if not found >= AGREEMENT:
        raise RepresentationError(
            f"{folder}: 8-bit integers do not suit this network: {what} have a cosine of {found:.3f} with those in float32, "
            f"less than {AGREEMENT}: use dtype float32 or bfloat16"
        )


def probe_rows(n_tokens: int) -> list[list[int]]:
    """Texts of random tokens."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, n_tokens, n).tolist() for n in PROBE_LENGTHS]


def agreement(network: Any, transformer: IntegerBert) -> float:
    """Smallest cosine between states in integers and in floats, over the tokens of a few texts of random tokens."""
    smallest = 1.0
    for ids in probe_rows(network.config.vocab_size):
        with torch.inference_mode():
            wanted = network(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        smallest = min(smallest, _smallest_cosine(transformer.states([ids])[0], wanted))
    return smallest


def check_vocabulary(
    layer: torch.nn.Linear, vocabulary: IntegerVocabulary, features: torch.Tensor, lengths: Sequence[int], folder: Path
) -> None:  # fmt: skip
    """Hold a vocabulary layer in integers to the one in floats, by the largest logits of a few texts.

    Raises
    ------
    RepresentationError
        They differ too much.
    """
    with torch.inference_mode():
        parts = torch.nn.functional.linear(features, layer.weight, layer.bias).relu()
        wanted = torch.stack([part.amax(0) for part in torch.split(parts, list(lengths))]).numpy()
    found = vocabulary.pooled(features, lengths).numpy()
    some = wanted.any(axis=1) | found.any(axis=1)
    _check_agreement(folder, "weights of terms", _smallest_cosine(found[some], wanted[some]))


def _smallest_cosine(found: Floats, wanted: Floats) -> float:
    """Smallest cosine of two rows, 1 where there are none."""
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-30)
    return float(((a * b).sum(axis=1) / lengths).min(initial=1))


class IntegerBert(torch.nn.Module):
    """The transformer of a BERT checkpoint, without head.

    Parameters
    ----------
    network : transformers.BertModel
        On the CPU, in float32.
    folder : Path
        Where it is from, for messages.

    Raises
    ------
    RepresentationError
        The network is no plain BERT encoder with GELU, or its sizes do not suit the kernels.
    """

    def __init__(self, network: Any, folder: Path) -> None:
        super().__init__()
        self.config = config = network.config
        _check(config, folder)
        self._n_heads, self._epsilon = config.num_attention_heads, float(config.layer_norm_eps)
        embeddings = network.embeddings
        self._words, self._places = _floats(embeddings.word_embeddings.weight), _floats(embeddings.position_embeddings.weight)
        self._places = self._places + _floats(embeddings.token_type_embeddings.weight)[0]
        self._norm = (_floats(embeddings.LayerNorm.weight), _floats(embeddings.LayerNorm.bias))
        layers = list(network.encoder.layer)
        own = [layer.attention.self for layer in layers]
        self._layers = Layers(
            attended=_stacked([_joined(each.query, each.key, each.value) for each in own]),
            joined=_stacked([_arrays(layer.attention.output.dense) for layer in layers]),
            widened=_stacked([_arrays(layer.intermediate.dense) for layer in layers]),
            narrowed=_stacked([_arrays(layer.output.dense) for layer in layers]),
            norms=read_only(np.stack([_norms(layer.attention.output, layer.output) for layer in layers])),
        )
        self._workers = Workers()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        """Stand in for the network that this was made from; states of tokens that are not attended to are left at 0."""
        ids = [row[:n] for row, n in zip(input_ids.tolist(), attention_mask.sum(1).tolist(), strict=True)]
        hidden = torch.zeros(*input_ids.shape, self.config.hidden_size)
        for row, state in zip(hidden, self.states(ids), strict=True):
            row[: len(state)] = torch.from_numpy(state)
        return BaseModelOutput(last_hidden_state=hidden)

    def states(self, ids: Sequence[Sequence[int]], attended: Sequence[int] | None = None) -> list[Floats]:
        """Last hidden states of each text, (n_tokens, hidden) float32; texts are shared by as many threads as torch uses.

        ``attended``: how many of a text's first tokens others see; by default all.
        """
        counts = [len(row) for row in ids] if attended is None else list(attended)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))  # the longest first, so that threads end together
        groups = _groups(order, [len(row) for row in ids], torch.get_num_threads())
        found = self._workers.map(
            lambda number: self._states([ids[i] for i in groups[number]], [counts[i] for i in groups[number]]),
            len(groups), torch.get_num_threads(),
        )  # fmt: skip
        states: list[Floats] = [np.empty(0, np.float32)] * len(ids)
        for group, parts in zip(groups, found, strict=True):
            for i, state in zip(group, parts, strict=True):
                states[i] = state
        return states

    def _states(self, ids: Sequence[Sequence[int]], n_attended: Sequence[int]) -> list[Floats]:
        x = np.concatenate([self._words[np.asarray(row, np.int64)] + self._places[: len(row)] for row in ids])
        ends = np.cumsum([len(row) for row in ids]).astype(np.int32)
        if len(x):
            layer_norm(x, *self._norm, self._epsilon)
            run_layers(x, self._layers, ends, np.array(n_attended, np.int32), self._n_heads, self._epsilon)
        return np.split(x, ends[:-1])


def _groups(order: Sequence[int], lengths: Sequence[int], n_threads: int) -> list[list[int]]:
    """Texts that go through the layers together: up to `TOGETHER` tokens, but as many groups as threads."""
    most = min(TOGETHER, -(-sum(lengths) // n_threads))
    groups: list[list[int]] = []
    n_tokens = 0
    for i in order:
        if not groups or n_tokens + lengths[i] > most:
            groups.append([])
            n_tokens = 0
        groups[-1].append(i)
        n_tokens += lengths[i]
    return groups


class IntegerVocabulary:
    """A vocabulary layer with max pooling.

    Parameters
    ----------
    layer : torch.nn.Linear
        (hidden -> n_terms), in float32.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        weight, bias = _arrays(layer)
        self.n_terms = len(weight)
        n_out = -(-len(weight) // LANES) * LANES
        wide, wide_bias = np.zeros((n_out, weight.shape[1]), np.float32), np.zeros(n_out, np.float32)
        wide[: len(weight)], wide_bias[: len(weight)] = weight, bias
        self._layer = _stacked([(wide, wide_bias)])
        self._rows = read_only(_rounded(weight)[0])
        self._workers = Workers()

    def pooled(self, features: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Largest logit of each term over the tokens of each text, where above zero, (n_texts, n_terms) float32.

        ``features`` (n_tokens, hidden) are those of all texts, end to end.
        """
        parts = np.split(np.ascontiguousarray(features.float().numpy()), np.cumsum(lengths)[:-1])
        out = np.zeros((len(lengths), self.n_terms), np.float32)

        def pool(number: int) -> None:
            if len(parts[number]):
                pool_terms(parts[number], self._layer, self._rows, LOGIT_MARGIN, out[number])

        self._workers.map(pool, len(parts), torch.get_num_threads())
        return torch.from_numpy(out)


def _check(config: Any, folder: Path) -> None:
    wanted = {
        "model_type": ("bert",),
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
    }
    for name, values in wanted.items():
        if getattr(config, name, None) not in values:
            raise RepresentationError(
                f"{folder}: dtype int8 is for BERT encoders with GELU, and {name} is {getattr(config, name)!r}: use float32"
            )
    hidden, wide, n_heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    if hidden % LANES or wide % LANES or (hidden // n_heads) % 4:
        raise RepresentationError(
            f"{folder}: dtype int8 wants sizes that {LANES} divides, not {hidden} and {wide}: use float32"
        )


def _rounded(weight: Floats) -> tuple[SignedBytes, Floats]:
    """Rows as signed bytes and their scales."""
    scales = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-30)) / np.float32(127)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales


def _stacked(layers: Sequence[tuple[Floats, Floats]]) -> Linear:
    parts = [(*_rounded(weight), bias) for weight, bias in layers]
    sums = np.stack([codes.sum(axis=1, dtype=np.int32) for codes, _, _ in parts])
    whole = np.empty((0, 3), np.int32)
    divided = [tamed(codes) if ROW_BITS == 7 else (codes, whole) for codes, _, _ in parts]
    ends = np.cumsum([len(rest) for _, rest in divided])
    blocks = np.arange(sums.shape[1] // LANES + 1) * LANES
    starts = [np.searchsorted(rest[:, 0], blocks) + end - len(rest) for (_, rest), end in zip(divided, ends, strict=True)]
    rests = np.concatenate([rest for _, rest in divided])
    return Linear(
        packed=read_only(np.stack([pack_lanes(codes) for codes, _ in divided])),
        starts=read_only((-OFFSET * sums).astype(np.int32).reshape(len(parts), -1, LANES)),
        scales=read_only(np.stack([scales for _, scales, _ in parts])),
        bias=read_only(np.stack([bias for _, _, bias in parts])),
        rest_starts=read_only(np.stack(starts).astype(np.int32)),
        rest=read_only(np.stack([rests[:, 1], rests[:, 0] % LANES, rests[:, 2]], axis=1)),
    )


def _norms(*parts: Any) -> Floats:
    return np.stack([[_floats(part.LayerNorm.weight), _floats(part.LayerNorm.bias)] for part in parts])


def _joined(*layers: torch.nn.Linear) -> tuple[Floats, Floats]:
    weights, biases = zip(*map(_arrays, layers), strict=True)
    return np.concatenate(weights), np.concatenate(biases)


def _arrays(layer: torch.nn.Linear) -> tuple[Floats, Floats]:
    weight = _floats(layer.weight)
    return weight, np.zeros(len(weight), np.float32) if layer.bias is None else _floats(layer.bias)


def _floats(tensor: torch.Tensor) -> Floats:
    return read_only(tensor.detach().float().cpu().numpy().astype(np.float32))
