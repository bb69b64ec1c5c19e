"""Inverse document frequencies of wordpieces, for queries that are encoded by look-up (arXiv 2411.04403)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ....index.arrays import Floats
from ...encoders.wordpieces import Wordpieces


def document_idf(texts: Iterable[str], wordpieces: Wordpieces, n_terms: int) -> Floats:
    """``ln(1 + (n - df + 0.5) / (df + 0.5))`` of each term over a corpus, (n_terms,) float32; special tokens weigh 0."""
    counts: Counter[int] = Counter()
    n_texts = 0
    for text in texts:
        counts.update(set(wordpieces.terms(text)))
        n_texts += 1
    frequencies = np.zeros(n_terms)
    for term, count in counts.items():
        frequencies[term] = count
    table = np.log1p((n_texts - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    table[sorted(wordpieces.special_ids)] = 0
    table[len(wordpieces.tokens) :] = 0  # spare rows of the model, which no text can hold
    return table


def write_idf(path: Path, table: Floats, wordpieces: Wordpieces) -> None:
    """Write a table as idf.json, terms that weigh nothing too."""
    by_token = {token: float(table[i]) for i, token in enumerate(wordpieces.tokens)}
    path.write_text(json.dumps(by_token, ensure_ascii=False), encoding="utf-8")
