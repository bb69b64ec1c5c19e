"""Students against plain computations, and the folders they write against other programs that read them."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.encoders.wordpieces import Wordpieces
from lexmax.retrieval.training.losses.multivector import MASKED
from lexmax.retrieval.training.students.base import Encoded, Student
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig
from lexmax.retrieval.training.students.dense import DenseStudent, DenseStudentConfig
from lexmax.retrieval.training.students.idf import document_idf
from lexmax.retrieval.training.students.registry import make_student
from lexmax.retrieval.training.students.splade import SpladeStudent, SpladeStudentConfig

from .conftest import VOCABULARY

TEXTS = ["sun in the city", "snow , ice . a cold night in the hill road", "rain", "", "the the sun"]


def splade(checkpoint: Path, **options: object) -> SpladeStudent:
    return SpladeStudent(checkpoint, SpladeStudentConfig(document_length=12, **options)).eval()  # type: ignore[arg-type]


def idf(checkpoint: Path) -> np.ndarray:
    return document_idf(TEXTS, Wordpieces(checkpoint), len(VOCABULARY))


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_splade_equals_all_logits_in_values_and_gradients(checkpoint: Path, activation: str) -> None:
    from transformers import AutoTokenizer, BertForMaskedLM

    network = BertForMaskedLM.from_pretrained(checkpoint).eval()
    inputs = AutoTokenizer.from_pretrained(checkpoint)(TEXTS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    logits = network(**inputs).logits.masked_fill(inputs["attention_mask"][:, :, None] == 0, -1e4)
    expected = logits.max(1).values.relu().log1p()
    expected = expected.log1p() if activation == "log1p_relu" else expected
    student = splade(checkpoint, activation=activation)
    found = student.encode(TEXTS, "document").vectors
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * upstream).sum().backward()
    (found * upstream).sum().backward()
    found_in = {name.removeprefix("network."): p.grad for name, p in student.named_parameters() if p.grad is not None}
    gradients = {name.replace("trunk.", "bert.", 1): grad for name, grad in found_in.items()}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            names = {"cls.predictions.bias": "decoder.bias", "bert.embeddings.word_embeddings.weight": "decoder.weight"}
            own = gradients.get(name, gradients.get(names.get(name, "")))
            torch.testing.assert_close(own, parameter.grad, atol=2e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_splade_saves_what_lexmax_and_sentence_transformers_read(checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    student = splade(checkpoint)
    with torch.no_grad():
        student.decoder.weight += 0.05
        student.decoder.bias -= 0.1
        expected = student.encode(TEXTS, "document").vectors
    student.save(tmp_path)
    torch.testing.assert_close(student.encode(TEXTS, "document").vectors, expected)  # saving takes nothing apart
    encoder = load_model_encoder(str(tmp_path))
    assert encoder.kind == "splade"
    np.testing.assert_allclose(dense(encoder.encode_documents(TEXTS)), expected.numpy(), atol=1e-5)
    theirs = SparseEncoder(str(tmp_path)).encode(TEXTS, convert_to_sparse_tensor=False)
    torch.testing.assert_close(theirs, expected, atol=1e-5, rtol=1e-4)


def test_inference_free_saves_what_lexmax_and_sentence_transformers_read(checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    config = SpladeStudentConfig(query_side="idf", learn_idf=True, activation="log1p_relu", document_length=12)
    student = SpladeStudent(checkpoint, config, idf=idf(checkpoint)).eval()
    assert student.idf is not None
    with torch.no_grad():
        student.idf[VOCABULARY.index("sun")] = 0.7
        student.idf[VOCABULARY.index("snow")] = -0.3  # learnt to be worthless
        queries, documents = (student.encode(TEXTS, side).vectors for side in ("query", "document"))  # type: ignore[arg-type]
    assert queries[4, VOCABULARY.index("sun")] == pytest.approx(0.7)
    assert queries[1, VOCABULARY.index("snow")] == 0
    student.save(tmp_path)
    encoder = load_model_encoder(str(tmp_path))
    assert encoder.kind == "inference-free"
    np.testing.assert_allclose(dense(encoder.encode_queries(TEXTS)), queries.numpy(), atol=1e-6)
    np.testing.assert_allclose(dense(encoder.encode_documents(TEXTS)), documents.numpy(), atol=1e-5)
    theirs = SparseEncoder(str(tmp_path))
    options = {"convert_to_sparse_tensor": False}
    torch.testing.assert_close(theirs.encode_document(TEXTS, **options), documents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(theirs.encode_query(TEXTS, **options), queries, atol=1e-5, rtol=1e-4)


def test_idf_is_that_of_the_corpus(checkpoint: Path) -> None:
    table = idf(checkpoint)
    assert table[VOCABULARY.index("sun")] == pytest.approx(math.log(1 + (5 - 2 + 0.5) / (2 + 0.5)))
    assert table[VOCABULARY.index("[CLS]")] == 0


def test_only_a_learnable_idf_learns(checkpoint: Path) -> None:
    for learn in (False, True):
        config = SpladeStudentConfig(query_side="idf", learn_idf=learn)
        student = SpladeStudent(checkpoint, config, idf=idf(checkpoint))
        assert student.idf is not None
        scores = student.scores(student.encode(["sun"], "query"), student.encode(["rain"], "document"), in_batch=True)
        scores.sum().backward()
        assert (student.idf.grad is not None) == learn


def test_frozen_embeddings_freeze_the_tied_layer_too(checkpoint: Path) -> None:
    student = splade(checkpoint, freeze_embeddings=True)
    student.encode(TEXTS, "document").vectors.sum().backward()
    assert student.decoder.weight.grad is None
    assert student.decoder.bias.grad is not None


def test_a_checkpoint_without_a_head_is_refused_unless_a_new_one_is_wanted(checkpoint: Path, tmp_path: Path) -> None:
    DenseStudent(checkpoint).save(tmp_path)
    with pytest.raises(RepresentationError, match=r"kind dense, of which a splade student would keep the network alone"):
        SpladeStudent(tmp_path)
    with pytest.raises(RepresentationError, match=r"lack \d+ parameters of BertForMaskedLM"):
        SpladeStudent(tmp_path, SpladeStudentConfig(ignore_layout=True))
    student = SpladeStudent(tmp_path, SpladeStudentConfig(new_head=True, ignore_layout=True))
    assert student.decoder.weight is student.trunk.get_input_embeddings().weight


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_dense_saves_what_sentence_transformers_reads(checkpoint: Path, tmp_path: Path, pooling: str, normalize: bool) -> None:
    from sentence_transformers import SentenceTransformer

    config = DenseStudentConfig(pooling=pooling, normalize=normalize, query_length=12, document_length=12, query_prompt="the ")  # type: ignore[arg-type]
    student = DenseStudent(checkpoint, config).eval()
    with torch.no_grad():
        queries, documents = (student.encode(TEXTS, side).vectors for side in ("query", "document"))  # type: ignore[arg-type]
    student.save(tmp_path)
    theirs = SentenceTransformer(str(tmp_path))
    assert len(theirs) == 2 + normalize
    np.testing.assert_allclose(theirs.encode_document(TEXTS), documents.numpy(), atol=1e-5)
    np.testing.assert_allclose(theirs.encode_query(TEXTS), queries.numpy(), atol=1e-5)


def test_colbert_ids_and_masks_are_stanfords(checkpoint: Path) -> None:
    student = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, query_length=8, document_length=6)).eval()
    with torch.no_grad():
        queries, documents = (student.encode(["sun , rain", "snow . ice . the"], side) for side in ("query", "document"))  # type: ignore[arg-type]
        again = student.encode(["snow . ice"], "document")
    assert queries.vectors.shape == (2, 8, 8)
    assert queries.mask is not None
    assert queries.mask.all()
    assert documents.mask is not None
    # [CLS] [D] sun , rain [SEP] | [CLS] [D] snow . ice [SEP], cut to 6
    assert documents.mask.tolist() == [[True, True, True, False, True, True]] * 2
    torch.testing.assert_close(again.vectors[0], documents.vectors[1])
    torch.testing.assert_close(documents.vectors.norm(dim=-1), torch.ones(2, 6))


def test_colbert_scores_lists_as_the_diagonal_of_all(checkpoint: Path) -> None:
    student = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, query_length=8)).eval()
    with torch.no_grad():
        queries, documents = student.encode(TEXTS[:2], "query"), student.encode([*TEXTS[:3], "a cold day"], "document")
        everything = student.scores(queries, documents, in_batch=True)
        lists = student.scores(queries, documents, in_batch=False)
    torch.testing.assert_close(lists, torch.stack([everything[0, :2], everything[1, 2:]]))
    assert everything.min() > MASKED


def test_colbert_saves_stanfords_layout_and_starts_from_it(checkpoint: Path, tmp_path: Path) -> None:
    config = ColbertStudentConfig(dim=8, query_length=8, document_length=10)
    student = ColbertStudent(checkpoint, config).eval()
    student.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["HF_ColBERT"]
    metadata = json.loads((tmp_path / "artifact.metadata").read_text())
    assert (metadata["query_maxlen"], metadata["doc_maxlen"], metadata["dim"]) == (8, 10, 8)
    again = ColbertStudent(tmp_path, ColbertStudentConfig(dim=8, query_length=8, document_length=10, seed=9)).eval()
    with torch.no_grad():
        expected, found = student.encode(TEXTS, "query"), again.encode(TEXTS, "query")
    torch.testing.assert_close(found.vectors, expected.vectors)


def test_colbert_saves_what_lexmax_reads(checkpoint: Path, tmp_path: Path) -> None:
    config = ColbertStudentConfig(dim=8, query_length=8, document_length=10)
    student = ColbertStudent(checkpoint, config).eval()
    student.save(tmp_path)
    encoder = load_model_encoder(str(tmp_path))
    assert encoder.kind == "colbert"
    with torch.no_grad():
        queries, documents = (student.encode(TEXTS, side) for side in ("query", "document"))  # type: ignore[arg-type]
    for encoded, theirs in ((queries, encoder.encode_queries(TEXTS)), (documents, encoder.encode_documents(TEXTS))):
        assert encoded.mask is not None
        np.testing.assert_allclose(theirs.tokens.astype(np.float32), encoded.vectors[encoded.mask].numpy(), atol=2e-3)


def test_a_frozen_trunk_trains_the_projection_alone(checkpoint: Path) -> None:
    student = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, freeze_trunk=True))
    assert [name for name, p in student.named_parameters() if p.requires_grad] == ["layers.0.linear.weight"]
    queries, documents = student.encode(["sun"], "query"), student.encode(["rain"], "document")
    student.scores(queries, documents, in_batch=True).sum().backward()
    assert student.layers[0].linear.weight.grad is not None


@pytest.mark.parametrize("make", [SpladeStudent, DenseStudent, ColbertStudent])
def test_a_folder_that_is_no_model(make: Callable[[Path], Student], checkpoint: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(RepresentationError, match=r"no config\.json"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (SpladeStudent, SpladeStudentConfig(document_length=257)),
        (DenseStudent, DenseStudentConfig(query_length=257)),
        (ColbertStudent, ColbertStudentConfig(document_length=257)),
    ],
)
def test_lengths_beyond_the_networks_positions(make: Callable[..., Student], config: object, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="a length is 257, but the model reads 256 tokens"):
        make(checkpoint, config)


def test_scores_of_single_vectors(checkpoint: Path) -> None:
    student = DenseStudent(checkpoint)
    queries = Encoded(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    documents = Encoded(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]))
    assert student.scores(queries, documents, in_batch=True).tolist() == [[1, 3, 5, 7], [2, 4, 6, 8]]
    assert student.scores(queries, documents, in_batch=False).tolist() == [[1, 3], [6, 8]]


def dense(vectors: object) -> np.ndarray:
    rows = np.zeros((len(vectors), len(VOCABULARY)), np.float32)  # type: ignore[arg-type]
    for i in range(len(rows)):
        terms, weights = vectors.row(i)  # type: ignore[attr-defined]
        rows[i, terms] = weights
    return rows


def test_students_by_name(checkpoint: Path, tmp_path: Path) -> None:
    assert isinstance(make_student("splade", checkpoint, activation="log1p_relu"), SpladeStudent)
    assert isinstance(make_student("colbert", checkpoint, dim=8), ColbertStudent)
    assert isinstance(make_student("dense", checkpoint, pooling="cls"), DenseStudent)
    counted = make_student("inference-free", checkpoint, texts=TEXTS)
    assert isinstance(counted, SpladeStudent)
    assert counted.idf is not None
    np.testing.assert_array_equal(counted.idf.detach().numpy(), idf(checkpoint))
    (tmp_path / "idf.json").write_text(json.dumps({"sun": 2.5, "[CLS]": 1.0}))
    read = make_student("inference-free", checkpoint, idf=tmp_path / "idf.json", learn_idf=True)
    assert isinstance(read, SpladeStudent)
    assert read.idf is not None
    assert read.idf.requires_grad
    assert {VOCABULARY[i] for i in read.idf.nonzero()} == {"sun"}
    with pytest.raises(ValueError, match="unknown method 'slim'"):
        make_student("slim", checkpoint)
    with pytest.raises(TypeError, match="dims"):
        make_student("colbert", checkpoint, dims=8)
