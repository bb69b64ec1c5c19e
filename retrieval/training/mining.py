"""Hard negatives: what a retriever ranks high for a query and is not its positive (ANCE, arXiv 2007.00808)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ...index.documents import Document
from ..progress import Progress
from ..results import Result
from ..retriever import Retriever
from .data import Example, read_examples, writing_records

QUERIES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class MiningReport:
    """What was written.

    Attributes
    ----------
    n_written : int
        Lists.
    n_short : int
        Queries left out, for which the retriever found too few negatives.
    """

    n_written: int
    n_short: int


def write_corpus(paths: Sequence[Path | str], out: Path | str) -> int:
    """Write the distinct positives of training files as a corpus to index, ``_id`` and ``text``; return their number.

    Raises
    ------
    DatasetError
        As `read_examples`.
    """
    positives = dict.fromkeys(example.positive_passage for path in paths for example in read_examples(path))
    with writing_records(out) as write:
        for number, text in enumerate(positives):
            write({"_id": str(number), "text": text})
    return len(positives)


def mine_negatives(
    path: Path | str, retriever: Retriever, out: Path | str, *, n_negatives: int, depth: int = 100, skip: int = 0,
    seed: int = 0, progress: Progress | None = None,
) -> MiningReport:  # fmt: skip
    """Write a list for each query: its positive first, then negatives drawn from a retriever's ranking.

    Parameters
    ----------
    path : Path or str
        Pairs, or lists, of which only query and positive are read.
    retriever : Retriever
        BM25 or any other, over a corpus in which the positives are.
    out : Path or str
        Lists without scores.
    n_negatives : int
        Of each query.
    depth, skip : int
        Negatives are drawn evenly from ranks ``skip`` to ``depth``, counted from 0; the first ranks of a good retriever
        are often relevant. Any positive of the same query is passed over.
    seed : int
        Of the draw.
    progress : callable, optional
        Called with the number of queries done.

    Raises
    ------
    ValueError
        Numbers out of range.
    DatasetError
        As `read_examples`.
    """
    if n_negatives < 1 or skip < 0 or depth - skip < n_negatives:
        raise ValueError("n_negatives must be >= 1, skip >= 0, and depth at least skip + n_negatives")
    positives: dict[str, set[str]] = defaultdict(set)
    for example in read_examples(path):
        positives[example.query].add(normal(example.positive_passage))
    n_done = n_written = 0
    with writing_records(out) as write:
        for example, results in ranked(read_examples(path), retriever, depth):
            known = positives[example.query]
            found = dict.fromkeys(content(result) for result in results[skip:])
            candidates = [text for text in found if normal(text) not in known]
            if len(candidates) >= n_negatives:
                picks = np.random.default_rng([seed, n_done]).choice(len(candidates), n_negatives, replace=False)
                passages = [example.positive_passage, *(candidates[pick] for pick in sorted(picks))]
                write(Example(query=example.query, passages=passages).record)
                n_written += 1
            n_done += 1
            if progress:
                progress(n_done)
    return MiningReport(n_written=n_written, n_short=n_done - n_written)


def ranked(examples: Iterable[Example], retriever: Retriever, k: int) -> Iterator[tuple[Example, list[Result]]]:
    """Each example with the ``k`` best results of its query."""
    examples = iter(examples)
    while batch := list(islice(examples, QUERIES_AT_ONCE)):
        yield from zip(batch, retriever.search_batch([example.query for example in batch], k), strict=True)


def content(result: Result) -> str:
    """What encoders saw of a result."""
    return Document(doc_id=result.doc_id, title=result.title, text=result.text).content


def normal(text: str) -> str:
    """Text by which passages are held to be the same: spaces do not count."""
    return " ".join(text.split())
