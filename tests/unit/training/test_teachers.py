import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from models import sentence_transformers_6

from lexmax.index.errors import DatasetError, RepresentationError
from lexmax.retrieval.training.data import Example, TrainingSet, read_examples
from lexmax.retrieval.training.students.dense import DenseStudent, DenseStudentConfig
from lexmax.retrieval.training.students.registry import make_student
from lexmax.retrieval.training.teachers import EXAMPLES_AT_ONCE, CrossEncoder, load_bi_encoder, score_lists

from .conftest import write_lines
from .test_starts import colbert_models, dense_model

EXAMPLES = [
    Example(query="sun in the city", passages=["a hot day", "snow on the hill , ice in the lake", ""]),
    Example(query="rain", passages=["wind , cold night", "the road"]),
]


@pytest.fixture
def cross_encoder(checkpoint: Path, tmp_path: Path) -> Path:
    return make_cross_encoder(checkpoint, tmp_path / "cross", 1)


def make_cross_encoder(checkpoint: Path, folder: Path, n_labels: int) -> Path:
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    config = BertConfig.from_pretrained(checkpoint)
    config.num_labels = n_labels
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    return folder


def test_cross_encoder_gives_sentence_transformers_logits(cross_encoder: Path) -> None:
    from sentence_transformers import CrossEncoder as Theirs

    pairs = [(example.query, passage) for example in EXAMPLES for passage in example.passages]
    theirs = Theirs(str(cross_encoder)).predict(pairs, activation_fn=torch.nn.Identity())
    ours = CrossEncoder(cross_encoder, batch_size=2).score(EXAMPLES)
    assert [len(row) for row in ours] == [3, 2]
    assert ours[0] + ours[1] == pytest.approx(theirs.tolist(), abs=1e-5)


def test_cross_encoder_with_two_labels_gives_their_difference(checkpoint: Path, tmp_path: Path) -> None:
    folder = make_cross_encoder(checkpoint, tmp_path / "two", 2)
    teacher = CrossEncoder(folder)
    inputs = teacher._tokenizer([EXAMPLES[1].query], [EXAMPLES[1].passages[1]], return_tensors="pt")
    with torch.no_grad():
        logits = teacher._network(**inputs).logits[0]
    assert teacher.score(EXAMPLES)[1][1] == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)
    with pytest.raises(RepresentationError, match="3 labels"):
        CrossEncoder(make_cross_encoder(checkpoint, tmp_path / "three", 3))


def test_a_masked_language_model_is_no_cross_encoder(checkpoint: Path) -> None:
    with pytest.raises(RepresentationError, match="lack"):
        CrossEncoder(checkpoint)


def test_a_dense_teacher_is_its_model(tmp_path: Path) -> None:
    """Of cls, two Dense modules, prompts and lengths, mean pooling without any of them was made."""
    from sentence_transformers import SentenceTransformer

    folder = dense_model(tmp_path / "dense")
    theirs = SentenceTransformer(str(folder), device="cpu")
    ours = load_bi_encoder(str(folder)).score(EXAMPLES)
    for example, row in zip(EXAMPLES, ours, strict=True):
        expected = theirs.encode_query([example.query]) @ theirs.encode_document(list(example.passages)).T
        assert row == pytest.approx(expected[0].tolist(), abs=1e-5)
    other = load_bi_encoder(str(folder), prompt="", passage_prompt="", max_length=5).score(EXAMPLES)
    theirs.max_seq_length = 5
    expected = theirs.encode([EXAMPLES[0].query]) @ theirs.encode(list(EXAMPLES[0].passages)).T
    assert other[0] == pytest.approx(expected[0].tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="a model of kind dense"):
        load_bi_encoder(str(folder), pooling="mean")


def test_a_colbert_teacher_sums_the_best_matches(tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    folder = colbert_models.sentence_transformers(tmp_path / "colbert")
    theirs = MultiVectorEncoder(str(folder), device="cpu")
    for example, row in zip(EXAMPLES, load_bi_encoder(str(folder)).score(EXAMPLES), strict=True):
        query, documents = theirs.encode_query([example.query]), theirs.encode_document(list(example.passages))
        expected = [float((torch.as_tensor(query[0]) @ torch.as_tensor(each).T).max(1).values.sum()) for each in documents]
        assert row == pytest.approx(expected, abs=1e-4)
    for make in (colbert_models.stanford, colbert_models.pylate):
        (scores, _) = load_bi_encoder(str(make(tmp_path / make.__name__)), max_length=6).score(EXAMPLES)
        assert all(-12 <= score <= 12 for score in scores)
    with pytest.raises(ValueError, match=r"prompts are for dense models, but .* is of kind colbert"):
        load_bi_encoder(str(folder), prompt="query: ")


def test_a_sparse_teacher_gives_dot_products(tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    folder = sentence_transformers_6(tmp_path / "splade", activation="log1p_relu")
    theirs = SparseEncoder(str(folder), device="cpu")
    for example, row in zip(EXAMPLES, load_bi_encoder(str(folder)).score(EXAMPLES), strict=True):
        query, documents = theirs.encode_query([example.query]), theirs.encode_document(list(example.passages))
        assert row == pytest.approx((query.to_dense() @ documents.to_dense().T)[0].tolist(), rel=1e-4)


def test_a_plain_transformer_teaches_once_its_pooling_is_said(checkpoint: Path, tmp_path: Path) -> None:
    student = DenseStudent(checkpoint, DenseStudentConfig(query_prompt="the ", pooling="cls")).eval()
    teacher = load_bi_encoder(str(checkpoint), pooling="cls", prompt="the ")
    with torch.no_grad():
        for example, row in zip(EXAMPLES, teacher.score(EXAMPLES), strict=True):
            query, passages = student.encode([example.query], "query"), student.encode(example.passages, "document")
            assert row == pytest.approx((passages.vectors @ query.vectors[0]).tolist(), abs=1e-5)
    assert teacher.fingerprint != load_bi_encoder(str(checkpoint), pooling="mean", prompt="the ").fingerprint
    student.trunk.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(RepresentationError, match="do not say how its states become a vector: state a pooling"):
        load_bi_encoder(str(tmp_path))


def test_a_dense_teacher_encodes_a_passage_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = load_bi_encoder(str(checkpoint), pooling="mean")
    encoded: list[str] = []
    encode = teacher._encoder.encode_documents

    def counting(texts: Sequence[str]) -> object:
        encoded.extend(texts)
        return encode(texts)

    monkeypatch.setattr(teacher._encoder, "encode_documents", counting)
    first = teacher.score(EXAMPLES)
    assert teacher.score([*EXAMPLES]) == first
    assert sorted(encoded) == sorted(passage for example in EXAMPLES for passage in example.passages)


@pytest.mark.parametrize("device", ["nosuch", "cuda:63", "meta"])
def test_a_device_that_is_not_here_is_named(device: str, checkpoint: Path, cross_encoder: Path) -> None:
    for make in (
        lambda: CrossEncoder(cross_encoder, device=device),
        lambda: load_bi_encoder(str(checkpoint), device=device),
        lambda: load_bi_encoder(str(checkpoint), pooling="cls", device=device),
        lambda: make_student("dense", checkpoint, device=device),
    ):
        with pytest.raises(ValueError, match=rf"device '{device}' is not here: .*; torch .* has cpu"):
            make()


def test_pairs_have_nothing_to_score(tmp_path: Path) -> None:
    pairs = write_lines(tmp_path / "pairs.jsonl", [{"query": "q", "positive": "p"}])
    with pytest.raises(DatasetError, match=r"pairs.jsonl: example 1 has one passage: scores are for lists"):
        score_lists(pairs, tmp_path / "out.jsonl", {"t": Lengths()}, cache=tmp_path / "cache")


class Lengths:
    """Scores a passage by its length, and fails when told."""

    def __init__(self, name: str = "lengths", fail_at: str | None = None) -> None:
        self.fingerprint, self.fail_at, self.seen = name, fail_at, []  # type: ignore[var-annotated]

    def score(self, examples: Sequence[Example]) -> list[list[float]]:
        for example in examples:
            if example.query == self.fail_at:
                raise KeyboardInterrupt
            self.seen.append(example.query)
        return [[float(len(passage)) for passage in example.passages] for example in examples]


@pytest.fixture
def unscored(tmp_path: Path) -> Path:
    records = [{"query": f"q{i}", "passages": ["p" * i, "é", "pp"], "positive": 1} for i in range(2 * EXAMPLES_AT_ONCE + 3)]
    return write_lines(tmp_path / "unscored.jsonl", records)


def test_scores_of_all_teachers_are_written_beside_each_other(unscored: Path, tmp_path: Path) -> None:
    done: list[int] = []
    teachers = {"one": Lengths(), "two/b": Lengths("other")}
    n_lists = score_lists(unscored, tmp_path / "out.jsonl.gz", teachers, cache=tmp_path / "cache", progress=done.append)
    data = TrainingSet([tmp_path / "out.jsonl.gz"])
    assert n_lists == len(data) == 35
    assert done[-1] == 70
    assert data.teachers == ("one", "two/b")
    assert data[7].scores == {"one": [7.0, 1.0, 2.0], "two/b": [7.0, 1.0, 2.0]}
    assert data[7].positive == 1


def test_scores_that_are_there_are_kept(unscored: Path, tmp_path: Path) -> None:
    score_lists(unscored, tmp_path / "once.jsonl", {"one": Lengths()}, cache=tmp_path / "cache")
    score_lists(tmp_path / "once.jsonl", tmp_path / "twice.jsonl", {"two": Lengths()}, cache=tmp_path / "cache")
    assert {frozenset(example.scores) for example in read_examples(tmp_path / "twice.jsonl")} == {frozenset({"one", "two"})}


def test_a_killed_run_goes_on_and_a_torn_line_is_dropped(unscored: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        score_lists(unscored, tmp_path / "out.jsonl", {"t": Lengths(fail_at="q33")}, cache=tmp_path / "cache")
    assert not (tmp_path / "out.jsonl").exists()
    (column,) = (tmp_path / "cache").iterdir()
    with column.open("a") as file:
        file.write("[1.0, 2")
    again = Lengths()
    score_lists(unscored, tmp_path / "out.jsonl", {"t": again}, cache=tmp_path / "cache")
    assert again.seen == ["q32", "q33", "q34"]
    assert [example.scores["t"][0] for example in read_examples(tmp_path / "out.jsonl")] == list(range(35))


def test_other_lists_or_another_teacher_do_not_meet_the_cache(unscored: Path, tmp_path: Path) -> None:
    def seen_by(teacher: Lengths, path: Path) -> int:
        score_lists(path, tmp_path / "out.jsonl", {"t": teacher}, cache=tmp_path / "cache")
        return len(teacher.seen)

    assert seen_by(Lengths(), unscored) == 35
    assert seen_by(Lengths(), unscored) == 0
    assert seen_by(Lengths("another"), unscored) == 35
    other = write_lines(tmp_path / "other.jsonl", [json.loads(line) for line in unscored.read_text().splitlines()[::-1]])
    assert seen_by(Lengths(), other) == 35
