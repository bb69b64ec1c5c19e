"""From a trained sparse autoencoder to a model folder: latents are counted in the texts, and named by what activates them.

A latent's label is up to three tokens: those that say most about where it is active, by their part of the divergence of its
tokens from those of all latents, p(token | latent) log(p(token | latent) / p(token)), activations counted by size. Over a dense
model, which has no tokens, it is up to three words that more of the latent's texts have than of others.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from ...index.arrays import Floats, Int64s
from ..encoders.checkpoints.sae import CHOICES, BaseFiles, SaeLayout, SaePooling, Weighting, write_sae_config
from .sae import SparseAutoencoder
from .sae_vectors import TrainingVectors

TEXTS_AT_ONCE = 64
N_TOKENS, N_WORDS, N_LABEL_TEXTS = 5, 3, 10
EXAMPLE_CHARACTERS = 100
WORD = re.compile(r"\w\w+")


@dataclass(frozen=True, kw_only=True)
class SaeModelConfig:
    """What a checkpoint makes of activations; see `encoders.checkpoints.sae.SaeLayout`.

    Attributes
    ----------
    document_pooling, query_pooling, weighting, gain, k1, b, document_top_k, query_top_k
        As `SaeLayout` has them.
    examples : int
        Texts that are kept of each latent: the first characters of those that activate it most. 0: none, where the corpus may
        not be passed on.
    """

    document_pooling: SaePooling = "sum"
    query_pooling: SaePooling = "max"
    weighting: Weighting = "bm25"
    gain: float = 8.0
    k1: float = 1.2
    b: float = 0.75
    document_top_k: int | None = None
    query_top_k: int | None = None
    examples: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.gain < math.inf or not 0 <= self.k1 < math.inf or not 0 <= self.b <= 1 or self.examples < 0:
            raise ValueError("gain must be > 0, k1 and examples >= 0, and b from 0 to 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}: expected {' or '.join(choices)}")
        if min(self.document_top_k or 1, self.query_top_k or 1) < 1:
            raise ValueError("document_top_k and query_top_k must be >= 1")

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of `SaeLayout`."""
        return {name: value for name, value in vars(self).items() if name != "examples"}


@dataclass(frozen=True, kw_only=True)
class SaeFacts:
    """What the training texts say of an autoencoder.

    Attributes
    ----------
    unexplained : float
        Share of the variance that is not reconstructed.
    n_dead : int
        Latents that no vector has.
    """

    unexplained: float
    n_dead: int


def save_model(
    network: SparseAutoencoder, vectors: TrainingVectors, base: BaseFiles, training: Any, config: SaeModelConfig, folder: Path
) -> SaeFacts:  # fmt: skip
    """Write config.json, model.safetensors, latents.json and a card.

    Parameters
    ----------
    network : SparseAutoencoder
    vectors : TrainingVectors
        Filled.
    base : BaseFiles
    training : SaeTrainConfig
        For the card.
    config : SaeModelConfig
    folder : Path
        Made, or written over.
    """
    survey = _survey(network, vectors)
    frequencies = np.bincount(survey.latents, minlength=len(network.encoder))
    idf = np.log1p((len(vectors.texts) - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    save_file({**tensors, "idf": torch.from_numpy(idf)}, folder / "model.safetensors", {"format": "pt"})
    n_latents, dim = network.encoder.shape
    layout = SaeLayout(
        folder=folder,
        base=base,
        dim=dim,
        n_latents=n_latents,
        n_active=network.n_active,
        scale=network.scale,
        **config.settings,
    )
    write_sae_config(layout)
    latents = _described(survey, vectors, n_latents, config.examples)
    (folder / "latents.json").write_text(json.dumps(latents, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    facts = SaeFacts(unexplained=survey.error / survey.total, n_dead=int((frequencies == 0).sum()))
    (folder / "README.md").write_text(_card(layout, vectors, training, facts), encoding="utf-8")
    return facts


class _Survey(NamedTuple):
    """What all texts say of the latents.

    Attributes
    ----------
    latents, texts, values : (n,)
        The largest activation of each latent that a text has.
    token_latents, tokens, sums : (m,)
        Sums of each latent's activations by token.
    error, total : float
        Squared lengths of what is not reconstructed, and of the inputs.
    """

    latents: Int64s
    texts: Int64s
    values: Floats
    token_latents: Int64s
    tokens: Int64s
    sums: Floats
    error: float
    total: float


def _survey(network: SparseAutoencoder, vectors: TrainingVectors) -> _Survey:
    maxima, sums, error, total = [], [], 0.0, 0.0
    for first in range(0, len(vectors.texts), TEXTS_AT_ONCE):
        span = vectors.offsets[first : first + TEXTS_AT_ONCE + 1]
        rows = slice(int(span[0]), int(span[-1]))
        with torch.no_grad():
            inputs = network.normalized(torch.from_numpy(vectors.vectors[rows].astype(np.float32)))
            active = network.active(inputs)
            values = network.activations(inputs, active)
            errors = inputs - network.decoded(active, values) - network.decoder_bias
        error += float(errors.square().sum())
        total += float(inputs.square().sum())
        numbers = np.repeat(np.arange(first, first + len(span) - 1), np.diff(span))
        above = values.numpy() > 0
        pairs = (active.numpy()[above], values.numpy()[above])
        maxima.append(_reduced(*pairs, _spread(numbers, above), np.maximum))
        sums.append(_reduced(*pairs, _spread(vectors.tokens[rows], above), np.add))
    texts = [np.concatenate(parts) for parts in zip(*maxima, strict=True)]
    tokens = [np.concatenate(parts) for parts in zip(*sums, strict=True)]
    by_token = _reduced(tokens[0], tokens[2], tokens[1], np.add)
    return _Survey(texts[0], texts[1], texts[2], *by_token, error, max(total, 1e-12))


def _spread(numbers: npt.NDArray[Any], above: npt.NDArray[np.bool_]) -> Int64s:
    """Number of each vector, repeated for those of its latents that are above zero."""
    return np.repeat(numbers.astype(np.int64), above.sum(1))


def _reduced(latents: Int64s, values: Floats, others: Int64s, reduce: np.ufunc) -> tuple[Int64s, Int64s, Floats]:
    """Latent, other number and reduced values of each pair that there is."""
    order = np.lexsort((others, latents))
    latents, others = latents[order], others[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(latents) != 0) | (np.diff(others) != 0)][: len(latents)])
    return latents[starts], others[starts], reduce.reduceat(values[order], starts) if len(starts) else values


def _best(latents: Int64s, others: Int64s, values: Floats, n_latents: int, n: int) -> list[list[int]]:
    """Of each latent, the ``n`` others of the largest values; of equals the lower number."""
    order = np.lexsort((others, -values, latents))
    ends = np.cumsum(np.bincount(latents, minlength=n_latents))
    starts = np.concatenate([[0], ends[:-1]])
    ranked = others[order]
    return [ranked[start : min(start + n, end)].tolist() for start, end in zip(starts, ends, strict=True)]


def _divergences(survey: _Survey) -> Floats:
    """What each token adds to the divergence of its latent's tokens from all tokens, up to a factor of the latent."""
    sums = survey.sums.astype(np.float64)
    by_latent, by_token = (np.bincount(keys, weights=sums)[keys] for keys in (survey.token_latents, survey.tokens))
    found: Floats = (sums * np.log(sums * sums.sum() / (by_latent * by_token))).astype(np.float32)
    return found


def _described(survey: _Survey, vectors: TrainingVectors, n_latents: int, n_examples: int) -> list[dict[str, Any]]:
    """Label, tokens and texts of each latent."""
    texts = _best(survey.latents, survey.texts, survey.values, n_latents, max(n_examples, N_LABEL_TEXTS))
    if vectors.base.representation == "dense":
        labels = _word_labels(texts, vectors.texts)
        tokens = labels
    else:
        strings = vectors.base.token_strings
        ranked = _best(survey.token_latents, survey.tokens, _divergences(survey), n_latents, N_TOKENS)
        tokens = [[strings[number] for number in numbers] for numbers in ranked]
        labels = [list(dict.fromkeys(token.removeprefix("##") for token in each))[:N_WORDS] for each in tokens]
    return [
        {
            "label": " ".join(label),
            "tokens": each,
            "texts": [" ".join(vectors.texts[number].split())[:EXAMPLE_CHARACTERS] for number in numbers[:n_examples]],
        }
        for label, each, numbers in zip(labels, tokens, texts, strict=True)
    ]


def _word_labels(best: Sequence[Sequence[int]], texts: Sequence[str]) -> list[list[str]]:
    """Of each latent, words that more of its best texts have than chance would have it."""
    words = [set(WORD.findall(text.lower())) for text in texts]
    frequencies = Counter(word for each in words for word in each)
    labels = []
    for numbers in best:
        found = Counter(word for number in numbers for word in words[number])
        scores = {word: count * math.log(len(texts) / frequencies[word]) for word, count in found.items()}
        labels.append(sorted(scores, key=lambda word: (-scores[word], word))[:N_WORDS])
    return labels


def _card(layout: SaeLayout, vectors: TrainingVectors, training: Any, facts: SaeFacts) -> str:
    return f"""# {layout.folder.resolve().parent.name}

A TopK sparse autoencoder (arXiv 2406.04093): {layout.n_latents:,} latents, {layout.n_active} active a vector.

- Over the vectors of {layout.base.model} ({layout.base.kind}, {layout.dim} numbers).
- Trained without labels on {len(vectors.vectors):,} vectors of {len(vectors.texts):,} texts: {training.n_steps:,} steps of \
{training.batch_size:,} vectors, learning rate {training.learning_rate:g}, seed {training.seed}.
- Unexplained variance {facts.unexplained:.3f}; {facts.n_dead:,} latents are dead.
- Which texts, their licence, and what chose settings: to be added by whoever passes the model on.
"""
