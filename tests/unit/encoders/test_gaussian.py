"""Gaussian models: scores are torch's own KL divergence, from texts on, and files that do not fit are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import TEXTS, masked_lm, tokenizer
from safetensors.torch import load_file, save_file
from torch.distributions import Independent, Normal, kl_divergence

from lexmax import Collection, Retriever, build_index, load_encoder
from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.shared_pass import SharedPass
from lexmax.retrieval.training.students.gaussian import GaussianStudent, GaussianStudentConfig

N_DIMS, BETA = 6, 2.5


def written(folder: Path, **options: Any) -> Path:
    """Write a model with random layers, and with what vectors are standardised by taken from texts."""
    source = folder.with_name(folder.name + "-source")
    masked_lm().bert.save_pretrained(source)
    tokenizer().save_pretrained(source)
    markers = {"query_marker": "[MASK]", "document_marker": "[PAD]"}
    lengths = {"query_length": 12, "document_length": 16}
    config = GaussianStudentConfig(n_dims=N_DIMS, beta=BETA, freeze_trunk=True, **markers, **lengths, **options)
    student = GaussianStudent(source, config).train()  # a frozen trunk does without dropout
    with torch.no_grad():
        torch.manual_seed(4)
        student.variance.weight.normal_(std=0.3)
        for _ in range(3):
            student.encode(TEXTS[:4], "document")
    student.save(folder)
    return folder


@pytest.fixture(scope="module", params=["cls", "mean"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("gaussian") / "m", pooling=request.param)


def distributions(folder: Path, texts: list[str], marker: int, length: int) -> Independent:
    """What the method says of texts, from transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    network: Any = AutoModel.from_pretrained(folder)
    network.eval()
    pieces: Any = AutoTokenizer.from_pretrained(folder)
    head, states = load_file(folder / "gaussian" / "model.safetensors"), []
    for text in texts:
        own = pieces(text, add_special_tokens=False)["input_ids"][: length - 3]
        ids = torch.tensor([[pieces.cls_token_id, marker, *own, pieces.sep_token_id]])
        with torch.no_grad():
            states.append(network(input_ids=ids).last_hidden_state[0])
    pooling = json.loads((folder / "gaussian" / "config.json").read_text())["pooling"]
    read = [each[:2] if pooling == "cls" else torch.stack([each.mean(0)] * 2) for each in states]
    first, second = torch.stack([each[0] for each in read]), torch.stack([each[1] for each in read])
    variance = torch.log1p(torch.exp(BETA * (second @ head["variance.weight"].T).double())) / BETA
    return Independent(Normal((first @ head["mean.weight"].T).double(), variance.sqrt()), 1)


def expected_scores(folder: Path, queries: list[str], documents: list[str]) -> np.ndarray:
    asked, given = distributions(folder, queries, 4, 12), distributions(folder, documents, 0, 16)
    pairs = [[-kl_divergence(one(asked, i), one(given, j)) for j in range(len(documents))] for i in range(len(queries))]
    return np.array(pairs, np.float64)


def one(several: Independent, number: int) -> Independent:
    base = several.base_dist
    return Independent(Normal(base.loc[number], base.scale[number]), 1)


def test_products_are_the_divergence(model: Path) -> None:
    encoder = load_encoder(model=str(model))
    assert encoder.kind == "gaussian"
    assert encoder.representation == "dense"
    assert encoder.dim == 2 * N_DIMS + 2
    found = encoder.encode_queries(TEXTS).vectors.astype(np.float64) @ encoder.encode_documents(TEXTS).vectors.T
    expected = expected_scores(model, TEXTS, TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).mean())


def test_documents_numbers_are_standardised(model: Path) -> None:
    vectors = load_encoder(model=str(model)).encode_documents(TEXTS[:4]).vectors
    np.testing.assert_allclose(vectors[:, :-1].mean(0), 0, atol=0.1)
    np.testing.assert_allclose(vectors[:, :-1].std(0), 1, atol=0.1)
    assert (vectors[:, -1] == 1).all()


def test_uncertainty_is_the_length_of_the_variances(model: Path) -> None:
    expected = distributions(model, TEXTS, 4, 12).base_dist.variance.norm(dim=1)
    np.testing.assert_allclose(load_encoder(model=str(model)).query_uncertainty(TEXTS), expected, rtol=1e-4)
    assert load_encoder(model=str(model)).query_uncertainty([]).shape == (0,)


def test_an_index_answers_with_the_divergence(model: Path, tmp_path: Path) -> None:
    corpus = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)]
    build_index(documents=corpus, out=tmp_path / "idx", encoders=[f"kl={model},keep=float32"])
    with Retriever.open(tmp_path / "idx") as retriever:
        results = retriever.search("sun in the city", k=len(TEXTS))
    scores = expected_scores(model, ["sun in the city"], TEXTS)[0]
    assert [each.doc_id for each in results] == [f"d{i}" for i in np.argsort(-scores, kind="stable")]
    np.testing.assert_allclose([each.score for each in results], np.sort(scores)[::-1], rtol=1e-4)
    with Collection.open(tmp_path / "idx") as collection:
        assert collection.manifest.fields["kl"].encoder.kind == "gaussian"


def test_it_shares_the_pass_of_its_trunk(model: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other", seed=1)
    encoders = {"one": load_encoder(model=str(model)), "other": load_encoder(model=str(other))}
    together = SharedPass(encoders).encode_documents(TEXTS)
    assert encoders["one"].load().trunk is encoders["other"].load().trunk
    for name, encoder in encoders.items():
        np.testing.assert_allclose(together[name].vectors, encoder.encode_documents(TEXTS).vectors, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("beta", 0, "beta is 0: it must be a number > 0"),
        ("pooling", "max", "pooling is 'max': it must be one of cls, mean"),
        ("n_dims", "six", "n_dims is 'six': it must be a whole number"),
        ("query_marker", "[NONE]", r"'\[NONE\]' is no token of the tokenizer"),
        ("document_length", 3, "lengths of"),
        ("temperature", 2, "'temperature' is 2"),
        ("n_dims", 7, "found tensors of shapes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(model: Path, tmp_path: Path, key: str, value: Any, message: str) -> None:
    folder = copied(model, tmp_path / "m")
    path = folder / "gaussian" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(RepresentationError, match=message):
        load_encoder(model=str(folder)).encode_queries(["sun"])


def test_damaged_layers_are_refused(model: Path, tmp_path: Path) -> None:
    folder = copied(model, tmp_path / "m")
    path = folder / "gaussian" / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"spread": torch.zeros_like(tensors["spread"])}, path)
    with pytest.raises(RepresentationError, match="spread above 0"):
        load_encoder(model=str(folder)).encode_queries(["sun"])
    save_file({name: tensor for name, tensor in tensors.items() if name != "centre"}, path)
    with pytest.raises(RepresentationError, match="found tensors of shapes"):
        load_encoder(model=str(folder)).encode_queries(["sun"])


def test_a_student_goes_on_from_a_model(model: Path, tmp_path: Path) -> None:
    student = GaussianStudent(model).eval()
    assert (student.config.n_dims, student.config.query_length, student.config.document_marker) == (N_DIMS, 12, "[PAD]")
    with torch.no_grad():
        scores = student.scores(student.encode(TEXTS, "query"), student.encode(TEXTS, "document"), in_batch=True)
        lists = student.scores(student.encode(TEXTS[:2], "query"), student.encode(TEXTS[:6], "document"), in_batch=False)
    expected = expected_scores(model, TEXTS, TEXTS)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(lists, [expected[0, :3], expected[1, 3:6]], rtol=1e-4, atol=1e-3)
    student.save(tmp_path / "again")
    first, second = load_encoder(model=str(model)), load_encoder(model=str(tmp_path / "again"))
    np.testing.assert_allclose(first.encode_documents(TEXTS).vectors, second.encode_documents(TEXTS).vectors, atol=1e-4)


def test_another_students_model_is_refused(model: Path) -> None:
    from lexmax.retrieval.training.students.dense import DenseStudent

    with pytest.raises(RepresentationError, match="kind gaussian, of which a dense student"):
        DenseStudent(model)


def test_the_fingerprint_follows_the_layers(model: Path, tmp_path: Path) -> None:
    folder = copied(model, tmp_path / "m")
    first = load_encoder(model=str(folder)).fingerprint
    assert first == load_encoder(model=str(model)).fingerprint
    path = folder / "gaussian" / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"centre": tensors["centre"] + 1}, path)
    assert load_encoder(model=str(folder)).fingerprint != first


def copied(model: Path, folder: Path) -> Path:
    import shutil

    shutil.copytree(model, folder)
    return folder
