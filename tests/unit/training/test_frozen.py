"""Heads on a frozen trunk: the cache of its states, prompts as markers, starts of new layers, kept similarities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lexmax.index.errors import StorageError
from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.training.data import TrainingSet
from lexmax.retrieval.training.loop import TrainConfig, train
from lexmax.retrieval.training.losses.similarity import similarity_distillation
from lexmax.retrieval.training.objective import Objective
from lexmax.retrieval.training.students.base import hidden_states
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig
from lexmax.retrieval.training.students.dense import DenseStudent, DenseStudentConfig
from lexmax.retrieval.training.students.splade import SpladeStudent, SpladeStudentConfig
from lexmax.retrieval.training.students.splade_head import start_head
from lexmax.retrieval.training.students.trunk_states import StateCache, frozen_states

TEXTS = ["sun in the city", "snow", "a cold night , a hot day", "the sea and the lake ?"]
NEW_HEAD: dict[str, bool] = {"freeze_trunk": True, "new_head": True, "ignore_layout": True}
MARKED = {"query_prompt": "[unused0]", "document_prompt": "[unused1]"}


def test_states_are_kept_across_runs_and_computed_once(checkpoint: Path, tmp_path: Path) -> None:
    student = SpladeStudent(checkpoint, SpladeStudentConfig(freeze_trunk=True))
    ids = student.token_ids([*TEXTS, TEXTS[0]], "document")
    expected = [states.half().float() for states in hidden_states(student.trunk, ids, 0)]
    cache = StateCache(tmp_path, "digest", 16)
    for found in (frozen_states(student.trunk, ids, 0, cache), frozen_states(student.trunk, ids, 0, cache)):
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)  # other passes, other paddings
    assert len(cache) == len(TEXTS)
    first = frozen_states(student.trunk, ids, 0, cache)
    cache.close()
    again = StateCache(tmp_path, "digest", 16)
    assert len(again) == len(TEXTS)
    assert all(map(torch.equal, first, frozen_states(student.trunk, ids, 0, again)))
    again.close()


@pytest.mark.parametrize(("file", "n_left"), [("states.bin", 1), ("keys.bin", 1)])
def test_a_torn_tail_is_dropped(tmp_path: Path, file: str, n_left: int) -> None:
    cache = StateCache(tmp_path, "digest", 2)
    rows = [torch.tensor([[1.0, 2.0]]).half(), torch.tensor([[3.0, 4.0], [5.0, 6.0]]).half()]
    cache.add([b"a" * 16, b"b" * 16], rows)
    cache.close()
    path = tmp_path / "digest" / file
    path.write_bytes(path.read_bytes()[:-3])
    cache = StateCache(tmp_path, "digest", 2)
    assert len(cache) == n_left
    assert cache.get(b"b" * 16) is None
    cache.add([b"c" * 16], [rows[1]])
    found = cache.get(b"a" * 16), cache.get(b"c" * 16)
    assert found[0] is not None
    assert found[1] is not None
    assert torch.equal(found[0], rows[0])
    assert torch.equal(found[1], rows[1])
    cache.close()


def test_two_runs_do_not_share_a_cache_at_once(tmp_path: Path) -> None:
    cache = StateCache(tmp_path, "digest", 2)
    with pytest.raises(StorageError, match="another run"):
        StateCache(tmp_path, "digest", 2)
    cache.close()


def test_a_frozen_trunk_leaves_the_head_to_learn(checkpoint: Path) -> None:
    student = SpladeStudent(checkpoint, SpladeStudentConfig(freeze_trunk=True)).train()
    whole = SpladeStudent(checkpoint).eval()
    names = {name for name, p in student.named_parameters() if p.requires_grad}
    assert names == {"network.cls.predictions.bias", *(f"network.cls.predictions.transform.{n}" for n in (
        "dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias"))}  # fmt: skip
    found, expected = student.encode(TEXTS, "document").vectors, whole.encode(TEXTS, "document").vectors
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=5e-3)  # through float16, without dropout


def test_markers_are_read_whole_by_student_encoder_and_sentence_transformers(checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    student = SpladeStudent(checkpoint, SpladeStudentConfig(**MARKED, query_length=16, document_length=16)).eval()  # type: ignore[arg-type]
    assert student.token_ids(["sun"], "query")[0][:2] == [4, 1]
    assert student.token_ids(["sun"], "document")[0][:2] == [4, 2]
    student.save(tmp_path)
    encoder, theirs = load_model_encoder(str(tmp_path)), SparseEncoder(str(tmp_path), device="cpu")
    with torch.no_grad():
        queries, documents = (student.encode(TEXTS, side).vectors.numpy() for side in ("query", "document"))  # type: ignore[arg-type]
    for mine, ours, other in (
        (queries, encoder.encode_queries(TEXTS), theirs.encode_query(TEXTS)),
        (documents, encoder.encode_documents(TEXTS), theirs.encode_document(TEXTS)),
    ):
        dense = np.zeros_like(mine)
        for i, row in enumerate(dense):
            terms, weights = ours.row(i)  # type: ignore[union-attr]
            row[terms] = weights
        np.testing.assert_allclose(dense, mine, atol=1e-5)
        np.testing.assert_allclose(other.to_dense().numpy(), mine, atol=1e-5)


def headless(checkpoint: Path, folder: Path) -> Path:
    DenseStudent(checkpoint, DenseStudentConfig()).save(folder)
    return folder


def test_a_new_head_names_its_tokens_and_is_sparse(checkpoint: Path, tmp_path: Path) -> None:
    start = headless(checkpoint, tmp_path)
    students = [SpladeStudent(start, SpladeStudentConfig(**NEW_HEAD)) for _ in range(2)]
    for student in students:
        assert student.has_new_head
        start_head(student, TEXTS * 4, n_steps=400, seed=3)
    for one, other in zip(students[0].parameters(), students[1].parameters(), strict=True):
        assert torch.equal(one, other)
    ids = students[0].token_ids(TEXTS, "document")
    logits = students[0].head(torch.cat(students[0].states(TEXTS, "document"))) @ students[0].decoder.weight.T
    logits += students[0].decoder.bias
    tokens = torch.tensor([i for row in ids for i in row])
    inner = tokens > 6
    assert (logits.argmax(1) == tokens)[inner].float().mean() > 0.8
    assert logits.max() < 10
    assert not SpladeStudent(checkpoint, SpladeStudentConfig(new_head=True)).has_new_head


def test_a_projection_starts_at_the_main_axes(checkpoint: Path) -> None:
    student = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, freeze_trunk=True))
    student.start_projection(TEXTS, TEXTS)
    weight = student.layers[0].linear.weight.detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    encoded = student.encode(TEXTS, "document")
    assert encoded.states is not None
    assert encoded.mask is not None
    units = normalize(encoded.states[encoded.mask], dim=-1)
    kept = (units @ weight.T).square().sum()
    random = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0))).Q[:8]
    assert kept > 1.05 * (units @ random.T).square().sum()


def test_similarity_by_hand() -> None:
    full = torch.tensor([[[[0.5], [0.4]], [[0.1], [9.0]]]])  # one query token, two passages of two tokens
    mask = torch.tensor([[[True, True], [True, False]]])
    assert similarity_distillation(full, full, mask) == 0
    projected = full.clone()
    projected[0, 0, 0, 0] = 0.7
    w = np.exp(-10 * 0.1)
    sums, targets = np.array([0.7, 0.1]), np.array([0.5, 0.1])
    expected = 0.04 / (1 + w + 1) + np.mean((sums - sums.mean() - targets + targets.mean()) ** 2) / 30
    assert similarity_distillation(projected, full, mask).item() == pytest.approx(expected, rel=1e-5)


def test_similarity_trains_and_is_refused_without_states(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    config = TrainConfig(objective=Objective(in_batch=0, similarity=30), n_steps=2, batch_size=4, n_passages=3)
    student = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, freeze_trunk=True))
    before = student.layers[0].linear.weight.detach().clone()
    train(student, TrainingSet([lists]), config, tmp_path / "run")
    assert not torch.equal(student.layers[0].linear.weight, before)
    with pytest.raises(ValueError, match="frozen trunk"):
        train(ColbertStudent(checkpoint, ColbertStudentConfig(dim=8)), TrainingSet([lists]), config, tmp_path / "other")


def test_a_marker_in_a_dense_prompt_is_one_token_also_when_saved(checkpoint: Path, tmp_path: Path) -> None:
    config = DenseStudentConfig(projection=8, freeze_trunk=True, query_prompt="[unused0]", document_prompt="[unused1]")
    student = DenseStudent(checkpoint, config).eval()
    assert student.wordpieces.encode(["[unused0]sun"], max_length=9)[0][1] == student.wordpieces.token_id("[unused0]")
    student.save(tmp_path / "saved")
    encoder = load_model_encoder(str(tmp_path / "saved"))
    (row,) = encoder.document_side.rows(["sun"])
    assert row.row.ids[1] == student.wordpieces.token_id("[unused1]")
    with torch.no_grad():
        expected = student.encode(TEXTS, "query").vectors.numpy()
    np.testing.assert_allclose(
        encoder.encode_queries(TEXTS).vectors, expected, atol=1e-3
    )  # a frozen trunk's states are float16
    again = DenseStudent(tmp_path / "saved")
    assert again.wordpieces.encode(["[unused0]sun"], max_length=9)[0][1] == student.wordpieces.token_id("[unused0]")
