"""Heads that learn on a frozen trunk: of other architectures than BERT's, and dense projections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.training.students.base import Student
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig
from lexmax.retrieval.training.students.dense import DenseStudent, DenseStudentConfig
from lexmax.retrieval.training.students.splade import SpladeStudent, SpladeStudentConfig
from lexmax.retrieval.training.students.splade_head import start_head

from .conftest import VOCABULARY

TEXTS = ["sun in the city", "snow , ice . a cold night in the hill road", "rain", "the the sun"]
SIZES = {"vocab_size": len(VOCABULARY), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 300, "initializer_range": 0.4, "pad_token_id": 0}  # fmt: skip
DISTIL = {"vocab_size": len(VOCABULARY), "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "initializer_range": 0.4}
MODERN = {"cls_token_id": 4, "sep_token_id": 5, "bos_token_id": 4, "eos_token_id": 5, "decoder_bias": True}
ARCHITECTURES = {"Bert": SIZES, "DistilBert": DISTIL, "Roberta": SIZES, "ModernBert": {**SIZES, **MODERN}}


@pytest.fixture(params=ARCHITECTURES)
def masked_model(request: pytest.FixtureRequest, checkpoint: Path, tmp_path: Path) -> Any:
    """A random masked language model in eval mode, saved in ``tmp_path / "model"`` with the test's tokenizer."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{request.param}Config")(**ARCHITECTURES[request.param])
    network = getattr(transformers, f"{request.param}ForMaskedLM")(config).eval()
    network.get_output_embeddings().bias.data.normal_()
    save(network, checkpoint, tmp_path / "model")
    return network


def save(network: Any, checkpoint: Path, folder: Path) -> None:
    network.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())


@pytest.mark.parametrize("frozen", [False, True])
def test_splade_is_the_full_forward_of_any_masked_model(masked_model: Any, frozen: bool, tmp_path: Path) -> None:
    student = SpladeStudent(tmp_path / "model", SpladeStudentConfig(freeze_trunk=frozen)).eval()
    found = student.encode(TEXTS, "document").vectors
    tolerance = 2e-2 if frozen else 1e-5  # frozen states pass through float16
    for text, row in zip(TEXTS, found, strict=True):
        ids = torch.tensor(student.token_ids([text], "document"))
        with torch.no_grad():
            expected = masked_model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].amax(0).relu().log1p()
        assert expected.max() > 0.5
        torch.testing.assert_close(row, expected, atol=tolerance, rtol=tolerance)
    found.sum().backward()
    learnt = {name.split(".")[0] for name, p in student.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert "network" in learnt
    assert ("trunk" in learnt) == (not frozen)
    assert student.decoder.bias.grad is not None
    assert (student.decoder.weight.grad is None) == frozen  # it is tied


def test_a_new_head_starts_in_any_masked_model(masked_model: Any, checkpoint: Path, tmp_path: Path) -> None:
    save(masked_model.base_model, checkpoint, tmp_path / "headless")
    student = SpladeStudent(tmp_path / "headless", SpladeStudentConfig(freeze_trunk=True, new_head=True))
    assert student.has_new_head
    start_head(student, TEXTS * 3, n_steps=30)
    largest = student.encode(TEXTS, "document").vectors.max()
    assert 1 < largest < np.log1p(8)
    again = SpladeStudent(tmp_path / "headless", SpladeStudentConfig(freeze_trunk=True, new_head=True))
    start_head(again, TEXTS * 3, n_steps=30)
    assert all(map(torch.equal, student.parameters(), again.parameters()))


def test_a_frozen_trunk_knows_no_dropout(checkpoint: Path) -> None:
    students: list[Student] = [
        SpladeStudent(checkpoint, SpladeStudentConfig(freeze_trunk=True)),
        ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, freeze_trunk=True)),
        DenseStudent(checkpoint, DenseStudentConfig(projection=8, freeze_trunk=True)),
    ]
    for student in students:
        student.train()
        assert student.training
        assert torch.equal(student.encode(TEXTS, "document").vectors, student.encode(TEXTS, "document").vectors)
    learning = DenseStudent(checkpoint).train()
    assert not torch.equal(learning.encode(TEXTS, "document").vectors, learning.encode(TEXTS, "document").vectors)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_dense_projection_is_read_by_lexmax_and_sentence_transformers(
    normalize: bool, checkpoint: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    student = DenseStudent(checkpoint, DenseStudentConfig(projection=6, normalize=normalize, query_prompt="the ")).eval()
    with torch.no_grad():
        queries, documents = (student.encode(TEXTS, side).vectors.numpy() for side in ("query", "document"))  # type: ignore[arg-type]
    assert queries.shape == (4, 6)
    student.save(tmp_path)
    modules = [module["path"] for module in json.loads((tmp_path / "modules.json").read_text())]
    assert modules == ["", "1_Pooling", "2_Dense", *(["3_Normalize"] if normalize else [])]
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(theirs.encode_query(TEXTS), queries, atol=1e-5)
    np.testing.assert_allclose(theirs.encode_document(TEXTS), documents, atol=1e-5)
    encoder = load_model_encoder(str(tmp_path))
    np.testing.assert_allclose(encoder.encode_queries(TEXTS).vectors, queries, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS).vectors, documents, atol=1e-5)


def test_a_dense_projection_starts_as_what_loses_nothing(checkpoint: Path) -> None:
    plain = DenseStudent(checkpoint).eval().encode(TEXTS, "document").vectors
    square = DenseStudent(checkpoint, DenseStudentConfig(projection=16)).eval()
    torch.testing.assert_close(square.encode(TEXTS, "document").vectors, plain)
    narrow, other = (DenseStudent(checkpoint, DenseStudentConfig(projection=8, seed=seed)).layers[0].linear for seed in (0, 1))
    torch.testing.assert_close(narrow.weight @ narrow.weight.T, torch.eye(8), atol=1e-5, rtol=0)
    assert not torch.equal(narrow.weight, other.weight)


def test_a_frozen_dense_trunk_trains_the_projection_alone(checkpoint: Path) -> None:
    student = DenseStudent(checkpoint, DenseStudentConfig(projection=8, freeze_trunk=True))
    assert [name for name, p in student.named_parameters() if p.requires_grad] == ["layers.0.linear.weight"]
    scores = student.scores(student.encode(["sun"], "query"), student.encode(["rain"], "document"), in_batch=True)
    scores.sum().backward()
    assert student.layers[0].linear.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"projection": -1}, "projection is -1"), ({"freeze_trunk": True}, "nothing"), ({"pooling": "sum"}, "pooling is 'sum'")],
)
def test_dense_settings_that_make_no_sense(options: dict[str, Any], message: str, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=message):
        DenseStudent(checkpoint, DenseStudentConfig(**options))
