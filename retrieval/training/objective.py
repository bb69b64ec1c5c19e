"""What a student minimises: distillation, in-batch contrast, and sparsity (SPLADE-v3, arXiv 2403.06789)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .data import Batch
from .losses.contrastive import in_batch_nll
from .losses.flops import flops, l1, quadratic_ramp
from .losses.kl import kl_distillation
from .losses.lambda_rank import lambda_rank
from .losses.margin_mse import margin_mse
from .losses.similarity import similarity_distillation
from .losses.tct import tct_distillation
from .students.base import Encoded, Student

ENSEMBLE_SCALE = 30.0  # makes the softmax over an average of several teachers as sharp as a teacher's


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Weights of the terms of a loss, which is their sum. A weight of 0 leaves the term out.

    Attributes
    ----------
    kl, margin_mse, lambda_rank : float
        Of distillation from the teachers' scores of each query's passages.
    tct : float
        Of `.losses.tct`: a ColBERT that runs beside the student scores every query with every passage of the batch.
    in_batch : float
        Of the negative log-likelihood of the positive among all passages of the batch.
    similarity : float
        Of `.losses.similarity`: a ColBERT's projection keeps the cosines of its frozen trunk.
    temperature : float
        The student's scores are divided by it in ``kl``, ``lambda_rank``, ``tct`` and ``in_batch``: 1 for SPLADE and ColBERT,
        about 0.05 for cosines. Losses are not multiplied by its square.
    score_scale : float
        0: one teacher's scores as they are; several teachers are brought to one scale as if it were 30. Above 0: teachers are
        brought to 0..1 over each query's whole list, averaged, and multiplied by it. ``margin_mse`` compares raw margins, so it
        should span what the student's scores do.
    flops_queries, flops_documents : float
        Of the penalties of a sparse student, full from ``ramp_steps`` on.
    flops_apart : bool
        Documents' penalty is the mean of that of the positives and that of the others, as in SPLADE's code; else one over all
        documents of the batch, as in the paper and in sentence-transformers.
    query_penalty : {"flops", "l1"}
    flops_min_nonzeros : int
        Documents of so few weights or fewer are not penalised.
    ramp_steps : int
        The penalties rise with the square of the step until here.
    """

    kl: float = 0.0
    margin_mse: float = 0.0
    lambda_rank: float = 0.0
    in_batch: float = 1.0
    similarity: float = 0.0
    tct: float = 0.0
    temperature: float = 1.0
    score_scale: float = 0.0
    flops_queries: float = 0.0
    flops_documents: float = 0.0
    flops_apart: bool = False
    query_penalty: Literal["flops", "l1"] = "flops"
    flops_min_nonzeros: int = 0
    ramp_steps: int = 1

    def __post_init__(self) -> None:
        learning = (self.kl, self.margin_mse, self.lambda_rank, self.in_batch, self.similarity, self.tct)
        weights = (*learning, self.flops_queries, self.flops_documents, self.score_scale)
        if min(weights) < 0 or self.temperature <= 0 or self.ramp_steps < 1 or self.flops_min_nonzeros < 0:
            raise ValueError("weights and flops_min_nonzeros must be >= 0, temperature > 0 and ramp_steps >= 1")
        if not any(learning):
            raise ValueError("nothing to learn from: kl, margin_mse, lambda_rank, in_batch, similarity and tct are all 0")
        if self.query_penalty not in ("flops", "l1"):
            raise ValueError(f"query_penalty is {self.query_penalty!r}: it must be 'flops' or 'l1'")

    @property
    def distils(self) -> bool:
        """Whether the data must have teachers' scores."""
        return bool(self.kl or self.margin_mse or self.lambda_rank)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The terms of one batch's loss, weighed, and what is worth a line in a log.

    Attributes
    ----------
    terms : dict of str to scalar tensor
    nonzeros : dict of str to float
        Weights above zero in a vector, on average; empty unless the student is sparse.
    """

    terms: dict[str, Tensor]
    nonzeros: dict[str, float]

    @property
    def total(self) -> Tensor:
        """Sum of the terms."""
        return torch.stack(list(self.terms.values())).sum()


def losses_of(
    student: Student, batch: Batch, objective: Objective, step: int, *, bf16: bool = False, teacher: Student | None = None
) -> Losses:  # fmt: skip
    """Encode a batch, with ``bf16`` under autocast, and compare; ``step`` counts from 1, ``teacher`` is that of ``tct``."""
    # No further than encoding: scores near 30 would be rounded to eighths.
    with torch.autocast(student.device.type, torch.bfloat16, enabled=bf16):
        queries, documents = student.encode(batch.queries, "query"), student.encode(batch.passages, "document")
    meets_all = objective.in_batch > 0 or objective.tct > 0
    scores = student.scores(queries, documents, in_batch=meets_all)
    terms = _learning_terms(scores, _own_passages(scores) if meets_all else scores, batch, objective)
    if objective.tct:
        taught = _maxsim_of_all(teacher, batch, bf16=bf16).to(scores.device)
        terms["tct"] = objective.tct * tct_distillation(scores / objective.temperature, taught)
    if objective.similarity:
        terms["similarity"] = objective.similarity * _similarity(queries, documents)
    if not student.sparse:
        return Losses(terms=terms, nonzeros={})
    terms.update(_penalties(queries.vectors, documents.vectors, len(queries.vectors), objective, step))
    counts = {side: float((w.vectors > 0).sum(1).float().mean()) for side, w in
              (("query_nonzeros", queries), ("document_nonzeros", documents))}  # fmt: skip
    return Losses(terms=terms, nonzeros=counts)


def _learning_terms(scores: Tensor, own: Tensor, batch: Batch, objective: Objective) -> dict[str, Tensor]:
    """Terms of all scores, (n, n * k) when the contrast is wanted, and of each query's own, (n, k)."""
    terms: dict[str, Tensor] = {}
    if objective.distils:
        teacher = taught_scores(batch, objective).to(own.device)
        if objective.kl:
            terms["kl"] = objective.kl * kl_distillation(own / objective.temperature, teacher)
        if objective.lambda_rank:
            terms["lambda_rank"] = objective.lambda_rank * lambda_rank(own / objective.temperature, teacher)
        if objective.margin_mse:
            first = torch.zeros(len(own), dtype=torch.long, device=own.device)
            terms["margin_mse"] = objective.margin_mse * margin_mse(own, teacher, first)
    if objective.in_batch:
        positives = torch.arange(len(scores), device=scores.device) * (scores.shape[1] // len(scores))
        excluded = torch.from_numpy(batch.excluded).to(scores.device)
        nll = in_batch_nll(scores, positives, excluded=excluded, temperature=objective.temperature)
        terms["in_batch"] = objective.in_batch * nll
    return terms


@torch.no_grad()
def _maxsim_of_all(teacher: Student | None, batch: Batch, *, bf16: bool) -> Tensor:
    if teacher is None:
        raise ValueError("the loss 'tct' needs a ColBERT teacher")
    with torch.autocast(teacher.device.type, torch.bfloat16, enabled=bf16):
        queries, documents = teacher.encode(batch.queries, "query"), teacher.encode(batch.passages, "document")
    return teacher.scores(queries, documents, in_batch=True)


def _similarity(queries: Encoded, documents: Encoded) -> Tensor:
    if queries.states is None or documents.states is None or documents.mask is None:
        raise ValueError("the loss 'similarity' is for a ColBERT student with a frozen trunk: set freeze_trunk=true")
    n, mask = len(queries.vectors), documents.mask
    lists = mask.reshape(n, -1, mask.shape[1])
    pairs = ((queries.vectors, documents.vectors), (queries.states, documents.states))
    projected, full = (
        torch.einsum("nqd,nktd->nktq", normalize(q.float(), dim=-1), normalize(d.float(), dim=-1).reshape(*lists.shape, -1))
        for q, d in pairs
    )
    return similarity_distillation(projected, full, lists)


def _own_passages(scores: Tensor) -> Tensor:
    """(n, n * k) scores of all with all: the (n, k) of each query with its own."""
    return torch.stack([row[i] for i, row in enumerate(scores.reshape(len(scores), len(scores), -1))])


def taught_scores(batch: Batch, objective: Objective) -> Tensor:
    """Scores to learn, (n, k): one teacher's raw ones, or the mean of several on one scale (arXiv 2411.04403, section 3)."""
    if objective.score_scale or len(batch.teachers) > 1:
        return torch.from_numpy(batch.relative.mean(0)) * (objective.score_scale or ENSEMBLE_SCALE)
    return torch.from_numpy(batch.teachers[0])


def _penalties(queries: Tensor, documents: Tensor, n_queries: int, objective: Objective, step: int) -> dict[str, Tensor]:
    """Of queries, and of documents."""
    ramp = quadratic_ramp(step, objective.ramp_steps)
    terms = {}
    if objective.flops_queries and queries.requires_grad:
        penalty = flops if objective.query_penalty == "flops" else l1
        terms["flops_queries"] = ramp * objective.flops_queries * penalty(queries)
    if objective.flops_documents:
        slots = documents.reshape(n_queries, -1, documents.shape[1])
        apart = objective.flops_apart and slots.shape[1] > 1
        parts = [slots[:, 0], slots[:, 1:].flatten(0, 1)] if apart else [documents]
        each = torch.stack([flops(part, min_nonzeros=objective.flops_min_nonzeros) for part in parts])
        terms["flops_documents"] = ramp * objective.flops_documents * each.mean()
    return terms
