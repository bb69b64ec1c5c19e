"""One step of the loop against sentence-transformers' losses: the same loss and the same gradients on the same batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from lexmax.retrieval.training.data import Batch, Batches, TrainingSet
from lexmax.retrieval.training.objective import Objective, losses_of
from lexmax.retrieval.training.students.base import Student
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig
from lexmax.retrieval.training.students.dense import DenseStudent, DenseStudentConfig
from lexmax.retrieval.training.students.splade import SpladeStudent, SpladeStudentConfig

from .conftest import write_lines
from .test_starts import colbert_models

N, K = 4, 3
CLOSE = {"rel": 1e-5, "abs": 1e-6}


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Four queries of one teacher, with passages that no two of them share."""
    words = ["sun", "rain", "snow", "wind", "ice", "hot", "cold", "day", "night", "city", "road", "sea"]
    records = [
        {
            "query": f"{words[i]} in the {words[i + 4]}",
            "passages": [f"{words[i]} {words[(i + j) % 12]} {words[(3 * i + j) % 12]} day a {words[j]}" for j in range(3)],
            "scores": {"t": [2.5 + i, 0.5 - i, -1.25 * i]},
            "positive": 0,
        }
        for i in range(N)
    ]
    made = Batches(TrainingSet([write_lines(tmp_path / "l.jsonl", records)]), batch_size=N, n_passages=K, seed=0)[0]
    assert not made.excluded.any()
    return made


def columns(batch: Batch) -> list[list[str]]:
    """Queries, positives, first and second negatives."""
    return [batch.queries, *(batch.passages[i::K] for i in range(K))]


def of_theirs(model: Any, loss: Any, batch: Batch, labels: torch.Tensor | None) -> float:
    """Their loss on the batch, whose gradients then stand in their model."""
    tasks = ["query", *["document"] * K]
    for module in model.train().modules():  # their pooling has gradients in this mode alone; without dropout it is the same
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    features = []
    for texts, task in zip(columns(batch), tasks, strict=True):
        prompt = (model.prompts or {}).get(task) or ""  # their trainer wants prompts said, ours keeps those of the model
        features.append({**model.preprocess([prompt + text for text in texts], task=task), "task": task})
    value = loss(features, labels)
    total = sum(value.values()) if isinstance(value, Mapping) else value
    total.backward()
    return float(total)


def gradients_agree(student: Student, theirs: Any, names: Mapping[str, str]) -> None:
    own, other = (dict(model.named_parameters(remove_duplicate=False)) for model in (student, theirs))
    for mine, name in names.items():
        torch.testing.assert_close(own[mine].grad, other[name].grad, rtol=1e-3, atol=1e-5)


SPARSE = {
    "margin_mse": "SparseMarginMSELoss", "kl": "SparseDistillKLDivLoss", "in_batch": "SparseMultipleNegativesRankingLoss",
}  # fmt: skip


def labels_of(name: str, batch: Batch) -> torch.Tensor | None:
    scores = torch.from_numpy(batch.teachers[0])
    return {"margin_mse": scores[:, :1] - scores[:, 1:], "kl": scores, "in_batch": None}[name]


@pytest.mark.parametrize("name", SPARSE)
def test_splade_with_flops_is_their_splade_loss(name: str, checkpoint: Path, batch: Batch, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder import losses

    config = SpladeStudentConfig(query_length=64, document_length=64)
    SpladeStudent(checkpoint, config).save(tmp_path / "start")
    student = SpladeStudent(tmp_path / "start").eval()
    weights = {"margin_mse": 0.0, "kl": 0.0, "in_batch": 0.0, name: 1.0}
    objective = Objective(**weights, flops_queries=0.03, flops_documents=0.02)  # type: ignore[arg-type]
    found = losses_of(student, batch, objective, 1)
    found.total.backward()

    theirs = SparseEncoder(str(tmp_path / "start"), device="cpu").eval()
    options = {"temperature": 1.0} if name == "kl" else {}
    inner = getattr(losses, SPARSE[name])(theirs, **options)
    loss = losses.SpladeLoss(theirs, inner, document_regularizer_weight=0.02, query_regularizer_weight=0.03)
    assert float(found.total) == pytest.approx(of_theirs(theirs, loss, batch, labels_of(name, batch)), **CLOSE)
    prefix = next(n for n, _ in theirs.named_parameters() if "cls.predictions.bias" in n).removesuffix("cls.predictions.bias")
    layer = "encoder.layer.1.attention.self.query.weight"
    names = {"decoder.bias": "cls.predictions.bias", "decoder.weight": "bert.embeddings.word_embeddings.weight",
             f"trunk.{layer}": f"bert.{layer}"}  # fmt: skip
    gradients_agree(student, theirs, {mine: prefix + other for mine, other in names.items()})


@pytest.mark.parametrize("name", ["in_batch", "kl", "margin_mse"])
def test_colbert_is_their_multi_vector_loss(name: str, batch: Batch, tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder import losses

    folder = colbert_models.sentence_transformers(
        tmp_path / "start", query_expansion={"strategy": "min", "length": 12, "attend": False}
    )
    student = ColbertStudent(folder).eval()
    weights = {"margin_mse": 0.0, "kl": 0.0, "in_batch": 0.0, name: 1.0}
    found = losses_of(student, batch, Objective(**weights), 1)  # type: ignore[arg-type]
    found.total.backward()
    theirs = MultiVectorEncoder(str(folder), device="cpu").eval()
    made = {
        "in_batch": losses.MultiVectorMultipleNegativesRankingLoss,
        "kl": losses.MultiVectorDistillKLDivLoss,
        "margin_mse": losses.MultiVectorMarginMSELoss,
    }[name]
    loss = made(theirs)
    assert float(found.total) == pytest.approx(of_theirs(theirs, loss, batch, labels_of(name, batch)), **CLOSE)


def test_dense_is_their_ranking_loss(checkpoint: Path, batch: Batch, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    DenseStudent(checkpoint, DenseStudentConfig(query_length=64, document_length=64)).save(tmp_path / "start")
    student = DenseStudent(tmp_path / "start").eval()
    found = losses_of(student, batch, Objective(in_batch=1, temperature=0.05), 1)
    theirs = SentenceTransformer(str(tmp_path / "start"), device="cpu").eval()
    loss = losses.MultipleNegativesRankingLoss(theirs, scale=20.0)
    assert float(found.total) == pytest.approx(of_theirs(theirs, loss, batch, None), **CLOSE)


def test_a_teacher_beside_the_student_is_tct_colberts_formula(checkpoint: Path, batch: Batch, tmp_path: Path) -> None:
    """KL(softmax(MaxSim / 0.25) || softmax(dot product)) over all passages of the batch (arXiv 2010.11386), in plain torch."""
    student = DenseStudent(checkpoint, DenseStudentConfig(normalize=False)).eval()
    teacher = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, query_length=8)).eval()
    found = losses_of(student, batch, Objective(in_batch=0, tct=2), 1, teacher=teacher)
    with torch.no_grad():
        said = student.encode(batch.queries, "query").vectors @ student.encode(batch.passages, "document").vectors.T
        queries, documents = teacher.encode(batch.queries, "query"), teacher.encode(batch.passages, "document")
        assert documents.mask is not None
        maxsim = torch.tensor([
            [float((q @ d[m].T).max(1).values.sum()) for d, m in zip(documents.vectors, documents.mask, strict=True)]
            for q in queries.vectors
        ])  # fmt: skip
        target = (maxsim / 0.25).softmax(1)
        expected = 2 * (target * (target.log() - said.log_softmax(1))).sum(1).mean()
    assert float(found.terms["tct"].detach()) == pytest.approx(float(expected), rel=1e-4)
    found.total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
