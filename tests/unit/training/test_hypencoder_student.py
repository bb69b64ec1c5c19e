"""Hypencoder students: the folder that they write scores as they do, and a published folder is trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypencoder_models import SIZES, expected_nets, expected_scores, expected_vectors, hypencoder
from models import TEXTS as PUBLISHED
from net_queries import net_scores

from lexmax.__main__ import main
from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder, recognised
from lexmax.retrieval.training.students.hypencoder import HypencoderStudent, HypencoderStudentConfig

QUERIES = ["sun rain", "cold night in the city", "ice"]
DOCUMENTS = ["the sun", "rain , snow", "a hot day", "bus on the road", "wind", "lake in the hill ."]


def student(checkpoint: Path, **options: object) -> HypencoderStudent:
    made = HypencoderStudent(checkpoint, HypencoderStudentConfig(n_layers=2, width=5, **options)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in made.head.items():  # a head that has learnt: networks differ
            if "projection" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return made


def test_the_folder_that_is_written_scores_as_the_student_does(checkpoint: Path, tmp_path: Path) -> None:
    made = student(checkpoint, query_length=7, document_length=9)
    made.save(tmp_path / "m")
    assert recognised(tmp_path / "m") == "hypencoder"
    encoder = load_model_encoder(str(tmp_path / "m"))
    with torch.no_grad():
        queries, documents = made.encode(QUERIES, "query"), made.encode(DOCUMENTS, "document")
        scores = made.scores(queries, documents, in_batch=True)
        lists = made.scores(queries, documents, in_batch=False)
    nets, vectors = encoder.encode_queries(QUERIES), encoder.encode_documents(DOCUMENTS)
    assert nets.sizes == made.sizes == (16, 16, 5)
    np.testing.assert_allclose(nets.numbers, queries.vectors, atol=1e-5)
    np.testing.assert_allclose(vectors.vectors, documents.vectors, atol=1e-5)
    for number in range(3):
        expected = net_scores(nets, number, vectors.vectors)
        np.testing.assert_allclose(scores[number], expected, atol=1e-4)
        np.testing.assert_allclose(lists[number], expected[2 * number : 2 * number + 2], atol=1e-4)
    assert np.abs(nets.numbers[0] - nets.numbers[1]).max() > 0.01
    again = HypencoderStudent(tmp_path / "m").eval()
    assert (again.config.query_length, again.config.document_length, again.sizes) == (7, 9, made.sizes)
    torch.testing.assert_close(again.encode(QUERIES, "query").vectors, queries.vectors, atol=1e-5, rtol=0)


def test_a_published_folder_is_trained_on(tmp_path: Path) -> None:
    made = HypencoderStudent(hypencoder(tmp_path / "m")).eval()
    with torch.no_grad():
        queries, documents = made.encode(PUBLISHED[:3], "query"), made.encode(PUBLISHED, "document")
        scores = made.scores(queries, documents, in_batch=True)
    vectors = expected_vectors(PUBLISHED)
    for row, net in zip(scores, expected_nets(PUBLISHED[:3]), strict=True):
        torch.testing.assert_close(row, expected_scores(net, vectors), atol=1e-3, rtol=1e-4)
    made.scores(made.encode(PUBLISHED[:2], "query"), made.encode(PUBLISHED[:2], "document"), in_batch=True).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert made.sizes == SIZES


def test_a_new_head_makes_one_network_for_all_queries_and_a_frozen_trunk_leaves_it_alone_to_learn(checkpoint: Path) -> None:
    made = HypencoderStudent(checkpoint, HypencoderStudentConfig(freeze_trunk=True))
    assert made.sizes == (16, 64)
    learning = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in made.named_parameters() if name.startswith("head.")}
    nets = made.encode(QUERIES, "query").vectors
    assert (nets - nets[0]).abs().max() < 0.05 < nets.abs().max()
    assert not made.encode(DOCUMENTS, "document").vectors.requires_grad
    other = HypencoderStudent(checkpoint, HypencoderStudentConfig(freeze_trunk=True, seed=1)).encode(QUERIES, "query").vectors
    assert (nets - other).abs().max() > 0.1


def test_what_cannot_be_trained_on(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = hypencoder(tmp_path / "two", shared_encoder=False)
    with pytest.raises(RepresentationError, match="with two BERTs is not trained on"):
        HypencoderStudent(two)
    with pytest.raises(ValueError, match="leave out n_layers and width"):
        HypencoderStudent(hypencoder(tmp_path / "one"), HypencoderStudentConfig(width=3))
    for options, message in (({"width": 0}, "width is 0"), ({"query_length": 2}, ">= 3")):
        with pytest.raises(ValueError, match=message):
            HypencoderStudentConfig(**options)
    arguments = ["train", "hypencoder", "--model", str(checkpoint), "--data", "none.jsonl", "--out", str(tmp_path / "run")]
    assert main([*arguments, "--set", "pooling=cls"]) == 2
    assert "pooling" in capsys.readouterr().err
