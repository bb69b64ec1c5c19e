"""Students keep the layout of the checkpoint that they start from: they encode as its encoder does, before and after saving."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import (
    VOCABULARY,
    raw,
    router_with_table,
    router_with_towers,
    sentence_transformers_5,
    sentence_transformers_6,
    with_idf,
)

from lexmax import DenseVectors
from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.training.students.base import Student
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig
from lexmax.retrieval.training.students.dense import DenseStudent, DenseStudentConfig
from lexmax.retrieval.training.students.registry import make_student
from lexmax.retrieval.training.students.splade import SpladeStudent, SpladeStudentConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "encoders"))
import colbert_models

GELU = "torch.nn.modules.activation.GELU"
TEXTS = colbert_models.TEXTS
STACK = [{"out": 24, "bias": True, "activation": GELU, "residual": True}, {"width": 24, "bias": True, "residual": True}]
COLBERTS: dict[str, Callable[[Path], Path]] = {
    "stanford": lambda folder: colbert_models.stanford(folder, query_maxlen=9, doc_maxlen=11, attend_to_mask_tokens=True),
    "stanford, punctuation": lambda folder: colbert_models.stanford(folder, mask_punctuation=False),
    "pylate": colbert_models.pylate,
    "pylate, stack": lambda folder: colbert_models.pylate(folder, STACK, skiplist_words=["the", "?"]),
    "pylate, prompts": lambda folder: colbert_models.pylate(
        folder, do_query_expansion=False, query_length=8, prompts={"query": "what is ", "document": "the "}
    ),
    "sentence-transformers": lambda folder: colbert_models.sentence_transformers(
        folder, query_expansion={"strategy": "min", "length": 12, "attend": False}
    ),
    "sentence-transformers, skipped": lambda folder: colbert_models.sentence_transformers(
        folder, skiplist=["the"], tasks=["document", "query"]
    ),
}


def same(found: Any, student: Student, texts: list[str], side: str) -> None:
    """Vectors of an encoder, and those of a student: dense, sparse or of tokens."""
    with torch.no_grad():
        encoded = student.eval().encode(texts, side)  # type: ignore[arg-type]
    vectors = encoded.vectors.numpy()
    if isinstance(found, DenseVectors):
        np.testing.assert_allclose(found.vectors, vectors, atol=2e-5)
    elif hasattr(found, "tokens"):
        assert encoded.mask is not None
        assert np.diff(found.offsets).tolist() == encoded.mask.sum(1).tolist()
        np.testing.assert_allclose(found.tokens, vectors[encoded.mask.numpy()], atol=2e-5)
    else:
        rows = np.zeros_like(vectors)
        for i, row in enumerate(rows):
            terms, weights = found.row(i)
            row[terms] = weights
        np.testing.assert_allclose(rows, vectors, atol=2e-5)


def keeps(folder: Path, make: Callable[[Path], Student], out: Path, **kind: Any) -> Student:
    """A student that encodes as the encoder of its folder; changed and saved, it encodes as the encoder of what it wrote."""
    student = make(folder)
    encoder = load_model_encoder(str(folder), **kind)
    same(encoder.encode_queries(TEXTS), student, TEXTS, "query")
    same(encoder.encode_documents(TEXTS), student, TEXTS, "document")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter *= 1.25
    student.save(out)
    saved = load_model_encoder(str(out), **kind)
    same(saved.encode_queries(TEXTS), student, TEXTS, "query")
    same(saved.encode_documents(TEXTS), student, TEXTS, "document")
    return student


@pytest.mark.parametrize("name", COLBERTS)
def test_colbert_keeps_projections_markers_prompts_lengths_and_skipped_tokens(name: str, tmp_path: Path) -> None:
    student = keeps(COLBERTS[name](tmp_path / "start"), ColbertStudent, tmp_path / "out", kind="colbert")
    assert isinstance(student, ColbertStudent)
    learnt = {n for n, p in student.named_parameters() if p.requires_grad}
    assert {f"layers.{i}.{n}" for i, layer in enumerate(student.layers) for n in layer.state_dict()} <= learnt
    queries, documents = (student.encode(TEXTS[:2], side) for side in ("query", "document"))  # type: ignore[arg-type]
    assert queries.mask is not None
    best = (documents.vectors[0] @ queries.vectors[0].T).masked_fill(~documents.mask[0][:, None], -9).max(0).values  # type: ignore[index]
    expected = (best * queries.mask[0]).sum()
    torch.testing.assert_close(student.scores(queries, documents, in_batch=True)[0, 0], expected)


@pytest.mark.parametrize("name", ["stanford", "pylate", "sentence-transformers"])
def test_lengths_that_a_colbert_student_is_given_are_saved(name: str, tmp_path: Path) -> None:
    config = ColbertStudentConfig(query_length=14, document_length=10, mask_punctuation=False)
    folder = COLBERTS[name](tmp_path / "start")
    student = ColbertStudent(folder, config).eval()
    student.save(tmp_path / "out")
    saved = load_model_encoder(str(tmp_path / "out"))
    same(saved.encode_queries(TEXTS), student, TEXTS, "query")
    same(saved.encode_documents(TEXTS), student, TEXTS, "document")
    assert saved.document_length == 10
    given = load_model_encoder(str(folder), query_length=14, document_length=10)
    same(given.encode_queries(TEXTS), student, TEXTS, "query")


def test_a_colbert_student_is_not_given_another_dim_in_silence(tmp_path: Path) -> None:
    folder = colbert_models.stanford(tmp_path / "start")
    with pytest.raises(ValueError, match=r"dim is 8, but the projection of .* gives 16 numbers"):
        ColbertStudent(folder, ColbertStudentConfig(dim=8))
    student = ColbertStudent(folder, ColbertStudentConfig(dim=8, ignore_layout=True))
    assert student.has_new_projection
    assert student.encode(["sun"], "query").vectors.shape == (1, 32, 8)
    with pytest.raises(RepresentationError, match="similarity 'l2'"):
        ColbertStudent(colbert_models.stanford(tmp_path / "l2", similarity="l2"))


SPLADES: dict[str, Callable[[Path], Path]] = {
    "plain": raw,
    "6, log1p_relu": lambda folder: sentence_transformers_6(
        folder, activation="log1p_relu", prompts={"query": "what is ", "document": "the "}
    ),
    "6, cosine": lambda folder: sentence_transformers_6(folder, similarity_fn_name="cosine"),
    "5, lower-cased": lambda folder: sentence_transformers_5(folder, "distilbert", do_lower_case=True, max_seq_length=9),
}


@pytest.mark.parametrize("name", SPLADES)
def test_splade_keeps_activation_prompts_lengths_and_similarity(name: str, tmp_path: Path) -> None:
    folder = SPLADES[name](tmp_path / "start")
    if name == "6, cosine":
        student = SpladeStudent(folder).eval()
        queries, documents = (student.encode(TEXTS[:2], side) for side in ("query", "document"))  # type: ignore[arg-type]
        expected = torch.nn.functional.cosine_similarity(queries.vectors[0], documents.vectors[1], dim=0)
        torch.testing.assert_close(student.scores(queries, documents, in_batch=True)[0, 1], expected)
        student.save(tmp_path / "out")
        card = json.loads((tmp_path / "out" / "config_sentence_transformers.json").read_text())
        assert card["similarity_fn_name"] == "cosine"
        return
    config = SpladeStudentConfig(query_length=64, document_length=64) if name == "plain" else None
    keeps(folder, lambda path: SpladeStudent(path, config), tmp_path / "out", kind="splade")


def test_a_tokenizer_that_keeps_case_is_obeyed(tmp_path: Path) -> None:
    folder = raw(tmp_path / "cased")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_lower_case": False}))
    config = SpladeStudentConfig(query_length=64, document_length=64)
    student = keeps(folder, lambda start: SpladeStudent(start, config), tmp_path / "out", kind="splade")
    upper, lower = (student.encode([text], "document").vectors for text in ("SUN IN", "sun in"))
    assert not torch.allclose(upper, lower)


def test_inference_free_keeps_its_table(tmp_path: Path) -> None:
    table = torch.rand(len(VOCABULARY), generator=torch.Generator().manual_seed(0))
    folder = router_with_table(tmp_path / "start", table)
    student = keeps(folder, lambda path: make_student("inference-free", path, texts=["sun"]), tmp_path / "out")
    assert isinstance(student, SpladeStudent)
    assert student.config.activation == "log1p_relu"
    old = with_idf(tmp_path / "old", {"sun": 2.5, "weather": 1.5})
    from_idf = make_student("inference-free", old, texts=["the sea"])
    assert isinstance(from_idf, SpladeStudent)
    assert from_idf.idf is not None
    assert {VOCABULARY[int(i)]: round(float(from_idf.idf[i]), 3) for i in from_idf.idf.nonzero()} == {
        "sun": 2.5,
        "weather": 1.5,
    }


def dense_model(folder: Path, **card: Any) -> Path:
    """cls + two Dense modules with bias and Tanh, prompts, lengths, upper-case letters kept apart."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(5)
    transformer = Transformer(str(raw(folder.with_name(folder.name + "-source"))), max_seq_length=9)
    denses = [Dense(32, 24), Dense(24, 16, bias=False, activation_function=torch.nn.Identity())]
    modules = [transformer, Pooling(32, "cls"), *denses, Normalize()]
    prompts = {"query": "what is ", "document": "the "}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu", **card).save(str(folder))
    return folder


def test_dense_keeps_pooling_layers_prompts_and_lengths(tmp_path: Path) -> None:
    student = keeps(dense_model(tmp_path / "start"), DenseStudent, tmp_path / "out", kind="dense")
    assert isinstance(student, DenseStudent)
    assert (student.config.pooling, student.config.query_length, len(student.layers)) == ("cls", 9, 2)
    further = DenseStudent(tmp_path / "start", DenseStudentConfig(projection=16)).eval()
    same(load_model_encoder(str(tmp_path / "start"), kind="dense").encode_queries(TEXTS), further, TEXTS, "query")
    with pytest.raises(RepresentationError, match="truncate_dim 8"):
        DenseStudent(dense_model(tmp_path / "cut", truncate_dim=8))


REFUSED: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "sum": ("splade", lambda folder: sentence_transformers_6(folder, pooling="sum"), "pooling_strategy sum"),
    "towers": ("splade", router_with_towers, "a network of its own for queries"),
    "table": ("splade", lambda folder: with_idf(folder, {"sun": 1.0}), "kind inference-free"),
    "colbert": ("splade", colbert_models.stanford, "kind colbert"),
    "dense": ("colbert", dense_model, "kind dense"),
    "splade": ("dense", sentence_transformers_6, "kind splade"),
    "pylate": ("dense", colbert_models.pylate, "kind colbert"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_student_cannot_keep_is_refused_by_name(name: str, tmp_path: Path) -> None:
    method, make, message = REFUSED[name]
    folder = make(tmp_path / "start")
    with pytest.raises(RepresentationError, match=message) as caught:
        make_student(method, folder)
    assert "ignore_layout=true" in str(caught.value)
    if name in ("dense", "splade", "pylate"):  # these have what the network alone needs
        options = {"dim": 8} if method == "colbert" else {}
        if name != "dense":  # whose vocabulary has no markers
            assert make_student(method, folder, ignore_layout=True, **options).encode(["sun"], "query").vectors.ndim > 1
