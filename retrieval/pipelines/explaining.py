"""Explanations of hits: what each stage of a pipeline made of a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ...index.representations import Vectors
from ..searchers.explanation import Explanation, FieldExplanation, StageExplanation
from .pipeline import Answer, Pipeline, StageTrace

NO_NOTES: Mapping[str, str] = {}


def explain_hits(
    pipeline: Pipeline, answer: Answer, queries: Mapping[str, Vectors], number: int, text: str, contents: Sequence[str],
    checkpoint: Callable[[], None] | None = None, notes: Mapping[str, str] = NO_NOTES,
) -> list[Explanation]:  # fmt: skip
    """Explain the hits of one query of a batch that ran with ``trace``.

    Parameters
    ----------
    queries : mapping of str to vectors
        Those that ran.
    number : int
        Which query.
    text : str
        What it was made from.
    contents : sequence of str
        `Document.content` of its hits.
    checkpoint : callable or None
        Called before each explanation, which may run networks; what it raises ends the work.
    notes : mapping of str to str
        Field -> what was done to its query, for the ``measure`` of its explanations.

    Returns
    -------
    list of Explanation
        Without stages for a document whose record could not be read.
    """
    doc_nums, scores = answer.hits.query(number)
    unreadable = answer.unreadable[number] if answer.unreadable else ()
    explanations = []
    for doc_num, score, content in zip(doc_nums.tolist(), scores.tolist(), contents, strict=True):
        if checkpoint is not None:
            checkpoint()

        @cache
        def explain(name: str, doc_num: int = doc_num, content: str = content) -> FieldExplanation:
            found = pipeline.searchers[name].explain(queries[name], number, text, doc_num, content)
            return replace(found, measure="; ".join(filter(None, (found.measure, notes.get(name)))))

        stages = [_stage(trace, number, doc_num, explain) for trace in answer.trace if doc_num not in unreadable]
        explanations.append(Explanation(score=score, stages=stages))
    return explanations


def _stage(trace: StageTrace, number: int, doc_num: int, explain: Callable[[str], FieldExplanation]) -> StageExplanation:
    ranking = trace.rankings[number]
    (found,) = np.nonzero(ranking.doc_nums == doc_num)
    rank = int(found[0]) + 1 if len(found) else None
    parts = ranking.parts[:, rank - 1].tolist() if rank else [0.0] * len(trace.fields)
    fields = [replace(explain(name), contribution=part) for name, part in zip(trace.fields, parts, strict=True) if name]
    score = float(ranking.scores[rank - 1]) if rank else 0.0
    n_scored = None if trace.n_scored is None else int(trace.n_scored[number])
    return StageExplanation(stage=trace.stage, rank=rank, score=score, fields=fields, n_scored=n_scored)
