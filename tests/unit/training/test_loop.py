import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lexmax.index.errors import LexmaxError, StorageError
from lexmax.retrieval.training.checkpoints import load_checkpoint
from lexmax.retrieval.training.data import Batches, TrainingSet
from lexmax.retrieval.training.log import read_log
from lexmax.retrieval.training.loop import TrainConfig, TrainReport, train
from lexmax.retrieval.training.losses.contrastive import in_batch_nll
from lexmax.retrieval.training.objective import Objective, losses_of, taught_scores
from lexmax.retrieval.training.students.base import Student
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig
from lexmax.retrieval.training.students.dense import DenseStudent
from lexmax.retrieval.training.students.registry import make_student
from lexmax.retrieval.training.students.splade import SpladeStudent, SpladeStudentConfig
from lexmax.retrieval.training.validation import best_documents, ndcg_at_10

from .conftest import VOCABULARY, write_lines

OBJECTIVE = Objective(kl=1, in_batch=0.5, score_scale=5, flops_documents=0.01, flops_queries=0.01, ramp_steps=4)
CONFIG = TrainConfig(
    objective=OBJECTIVE, n_steps=7, batch_size=4, n_passages=2, accumulate=2, learning_rate=1e-3, warmup_steps=2, log_every=2
)


class Killed(BaseException):
    pass


def weights(run: Path) -> dict[str, torch.Tensor]:
    (place,) = (run / "checkpoints").glob("step-*")
    return load_file(place / "weights.safetensors") | load_file(place / "optimizer.safetensors")


def kill_after(n_steps: int) -> object:
    def progress(step: int) -> None:
        if step == n_steps:
            raise Killed

    return progress


@pytest.mark.parametrize("killed_after", [3, 4])  # checkpoints are after 2 and 4
def test_a_killed_run_ends_bit_identical(checkpoint: Path, lists: Path, tmp_path: Path, killed_after: int) -> None:
    config = TrainConfig(**{**vars(CONFIG), "checkpoint_every_steps": 2})
    data = TrainingSet([lists])
    train(SpladeStudent(checkpoint), data, config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(SpladeStudent(checkpoint), data, config, tmp_path / "cut", progress=kill_after(killed_after))  # type: ignore[arg-type]
    torch.manual_seed(99)  # whatever else the process does with torch's generator
    report = train(SpladeStudent(checkpoint), data, config, tmp_path / "cut")
    assert (report.n_resumed, report.n_steps) == (killed_after // 2 * 2, 7)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    logs = [[{k: v for k, v in line.items() if k != "passages_per_s"} for line in read_log(tmp_path / run / "log.jsonl")]
            for run in ("whole", "cut")]  # fmt: skip
    assert [line["step"] for line in logs[1]] == [2, 4, 6, 7]
    if killed_after == 4:  # a line averages over steps since the last checkpoint, when cut
        assert logs[0] == logs[1]


def test_threads_and_random_numbers_of_torch_are_given_back(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.get_rng_state()
    config = replace(CONFIG, n_threads=before[0] + 1)
    train(DenseStudent(checkpoint), TrainingSet([lists]), config, tmp_path)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_half_a_checkpoint_is_passed_over(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    train(DenseStudent(checkpoint), TrainingSet([lists]), CONFIG, tmp_path)
    half = tmp_path / "checkpoints" / "step-00000099"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    report = train(DenseStudent(checkpoint), TrainingSet([lists]), CONFIG, tmp_path)
    assert report.n_resumed == 7


def test_a_checkpoint_of_another_student_is_refused(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    train(DenseStudent(checkpoint), TrainingSet([lists]), CONFIG, tmp_path)
    student = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, query_length=8, document_length=10))
    with pytest.raises(StorageError, match="another student"):
        load_checkpoint(tmp_path / "checkpoints", student, torch.optim.AdamW(student.parameters()))


def test_another_configuration_or_other_data_is_refused(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    train(DenseStudent(checkpoint), TrainingSet([lists]), CONFIG, tmp_path / "run")
    other = TrainConfig(**{**vars(CONFIG), "seed": 1})
    with pytest.raises(FileExistsError, match="another seed"):
        train(DenseStudent(checkpoint), TrainingSet([lists]), other, tmp_path / "run")
    with lists.open("a") as file:
        file.write(json.dumps({"query": "car", "passages": ["a", "b"], "scores": {"cross": [1, 0], "dense": [1, 0]}}) + "\n")
    with pytest.raises(FileExistsError, match="another data, n_examples"):
        train(DenseStudent(checkpoint), TrainingSet([lists]), CONFIG, tmp_path / "run")
    kept = TrainConfig(**{**vars(CONFIG), "checkpoint_every_s": 1.0})
    lists.write_text("".join(lists.read_text().splitlines(keepends=True)[:-1]))
    train(DenseStudent(checkpoint), TrainingSet([lists]), kept, tmp_path / "run")


def test_another_student_is_refused(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    data, table = TrainingSet([lists]), np.ones(len(VOCABULARY), np.float32)
    idf = SpladeStudentConfig(query_side="idf")
    train(SpladeStudent(checkpoint, idf, idf=table), data, CONFIG, tmp_path)
    train(SpladeStudent(checkpoint, idf, idf=table), data, CONFIG, tmp_path)
    longer = SpladeStudentConfig(query_side="idf", document_length=9)
    for other in (
        SpladeStudent(checkpoint, idf, idf=table * 2),
        SpladeStudent(checkpoint, longer, idf=table),
        SpladeStudent(checkpoint),
        DenseStudent(checkpoint),
    ):
        with pytest.raises(FileExistsError, match="another student:"):
            train(other, data, CONFIG, tmp_path)


@pytest.mark.parametrize("method", ["splade", "colbert", "dense", "gaussian", "hypencoder"])
def test_the_loss_falls(checkpoint: Path, lists: Path, tmp_path: Path, method: str) -> None:
    made: Student
    if method == "splade":
        made = SpladeStudent(checkpoint)
    elif method == "colbert":
        made = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, query_length=8, document_length=10))
    else:
        made = make_student(method, checkpoint)
    objective = Objective(margin_mse=0.1, kl=1, in_batch=1, score_scale=2)
    config = TrainConfig(objective=objective, n_steps=60, batch_size=6, n_passages=3, learning_rate=3e-3, log_every=10)
    train(made, TrainingSet([lists]), config, tmp_path)
    losses = [line["loss"] for line in read_log(tmp_path / "log.jsonl")]
    assert losses[-1] < 0.9 * losses[0]
    assert (tmp_path / "last" / "model.safetensors").is_file()


def test_the_best_validation_is_kept_and_patience_ends_the_run(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.9])
    config = TrainConfig(**{**vars(CONFIG), "n_steps": 20, "validate_every": 1, "patience": 2})
    seen: list[float] = []

    def validate(student: Student) -> float:
        assert not student.training
        seen.append(next(scores))
        return seen[-1]

    report = train(DenseStudent(checkpoint), TrainingSet([lists]), config, tmp_path, validate=validate)
    assert seen == [0.2, 0.5, 0.4, 0.3]
    assert (report.best_score, report.best_step, report.n_steps) == (0.5, 2, 4)
    assert report.model == tmp_path / "best"
    best, last = (load_file(tmp_path / name / "model.safetensors") for name in ("best", "last"))
    assert any(not torch.equal(best[name], last[name]) for name in best)


def test_validation_leaves_no_trace_in_the_weights(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    data, runs = TrainingSet([lists]), []
    for name, validate_every in (("with", 2), ("without", 0)):
        config = TrainConfig(**{**vars(CONFIG), "validate_every": validate_every})
        validate = (lambda student: float(torch.rand(1))) if validate_every else None
        train(DenseStudent(checkpoint), data, config, tmp_path / name, validate=validate)
        runs.append(weights(tmp_path / name))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[1])


def test_the_rate_rises_then_falls_to_nothing() -> None:
    config = TrainConfig(n_steps=6, warmup_steps=2, learning_rate=1.0)
    assert [config.rate(step) for step in range(1, 7)] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_a_frozen_parameter_stays(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    student = ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, query_length=8, document_length=10, freeze_trunk=True))
    before = {name: parameter.clone() for name, parameter in student.named_parameters()}
    train(student, TrainingSet([lists]), CONFIG, tmp_path)
    changed = [name for name, parameter in student.named_parameters() if not torch.equal(parameter, before[name])]
    assert changed == ["layers.0.linear.weight"]


def test_bf16_trains(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    config = TrainConfig(**{**vars(CONFIG), "bf16": True})
    report = train(SpladeStudent(checkpoint), TrainingSet([lists]), config, tmp_path)
    assert report.n_steps == 7
    assert load_file(tmp_path / "last" / "model.safetensors")["bert.embeddings.word_embeddings.weight"].dtype == torch.float32


def test_a_loss_that_is_no_number_stops_the_run(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    student = DenseStudent(checkpoint)
    student.trunk.get_input_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(LexmaxError, match="at step 1"):
        train(student, TrainingSet([lists]), CONFIG, tmp_path)


def test_terms_are_weighed_and_ramped(checkpoint: Path, lists: Path) -> None:
    batch = Batches(TrainingSet([lists]), batch_size=3, n_passages=3, seed=0)[0]
    student = SpladeStudent(checkpoint).eval()
    weights = {"kl": 2.0, "margin_mse": 3.0, "in_batch": 4.0, "flops_queries": 5.0, "flops_documents": 6.0}
    objective = Objective(**weights, flops_apart=True, ramp_steps=4)  # type: ignore[arg-type]
    with torch.no_grad():
        plain = losses_of(student, batch, Objective(kl=1, margin_mse=1, in_batch=1), 1).terms
    found = losses_of(student, batch, objective, 2)
    queries, documents = student.encode(batch.queries, "query").vectors, student.encode(batch.passages, "document").vectors
    positives, others = documents[::3], documents[[1, 2, 4, 5, 7, 8]]
    ramp, flops = (2 / 4) ** 2, lambda w: (w.mean(0) ** 2).sum()
    expected = {
        **{name: weight * plain[name] for name, weight in (("kl", 2), ("margin_mse", 3), ("in_batch", 4))},
        "flops_queries": ramp * 5 * flops(queries),
        "flops_documents": ramp * 6 * (flops(positives) + flops(others)) / 2,
    }
    assert found.terms.keys() == expected.keys()
    for name, value in expected.items():
        assert found.terms[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert found.total.item() == pytest.approx(sum(value.item() for value in expected.values()), rel=1e-4)
    together = losses_of(student, batch, replace(objective, flops_apart=False), 2).terms["flops_documents"]
    assert together.item() == pytest.approx((ramp * 6 * flops(documents)).item(), rel=1e-4)
    assert found.nonzeros["document_nonzeros"] == pytest.approx((documents > 0).sum().item() / 9)


def test_settings_that_make_no_sense(checkpoint: Path, tmp_path: Path, lists: Path) -> None:
    with pytest.raises(ValueError, match="nothing to learn from"):
        Objective(in_batch=0)
    with pytest.raises(ValueError, match="must be >= 1"):
        TrainConfig(n_steps=0)
    student, data = DenseStudent(checkpoint), TrainingSet([lists])
    with pytest.raises(ValueError, match="the objective distils"):
        train(student, data, TrainConfig(n_steps=1, batch_size=2, objective=Objective(kl=1)), tmp_path)
    with pytest.raises(ValueError, match="go together"):
        train(student, data, TrainConfig(n_steps=1, batch_size=2, validate_every=1), tmp_path)


def test_one_teacher_is_learnt_raw_and_several_on_one_scale(tmp_path: Path) -> None:
    """Targets of two drawn passages were 30 and 0 whatever the teacher said."""
    record = {"query": "sun", "passages": ["rain", "snow", "ice"], "positive": 0, "scores": {"t": [2.0, 1.5, -8.0]}}
    several = {**record, "scores": {"t": [2.0, 1.5, -8.0], "u": [1.0, 0.0, 0.5]}}

    def targets(of: dict[str, object], **options: float) -> list[float]:
        batches = Batches(TrainingSet([write_lines(tmp_path / "l.jsonl", [of])]), batch_size=1, n_passages=2, seed=0)
        batch = next(batch for batch in (batches[number] for number in range(99)) if "snow" in batch.passages)
        return taught_scores(batch, Objective(kl=1, **options))[0].tolist()  # type: ignore[arg-type]

    assert targets(record) == [2.0, 1.5]
    assert targets(record, score_scale=10) == pytest.approx([10, 9.5], abs=1e-4)
    assert targets(several) == pytest.approx([30, 30 * (0.95 + 0) / 2], abs=1e-4)


class ByNumber(Student):
    """Scores document "7" as 7 for every query."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def encode(self, texts: object, side: object) -> object:  # type: ignore[override]
        from lexmax.retrieval.training.students.base import Encoded

        return Encoded(torch.tensor([[1.0 if side == "query" else float(text)] for text in texts]))  # type: ignore[attr-defined]


def test_ndcg_of_a_known_ranking() -> None:
    from math import log2

    documents = [str(i) for i in range(300)]  # more than are encoded at once
    student = ByNumber()
    assert best_documents(student, ["a"], documents, 3) == [[299, 298, 297]]
    judged = [{298: 2.0, 290: 1.0, 0: 3.0}, {299: 1.0}, {5: 0.0}]
    ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    first = (2 / log2(3) + 1 / log2(11)) / ideal
    assert ndcg_at_10(student, ["a", "b", "c"], documents, judged) == pytest.approx((first + 1) / 2)
    with pytest.raises(ValueError, match="no query has a relevant document"):
        ndcg_at_10(student, ["a"], documents, [{}])


def test_a_report_names_the_model(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    report = train(DenseStudent(checkpoint), TrainingSet([lists]), CONFIG, tmp_path)
    assert isinstance(report, TrainReport)
    assert report.model == tmp_path / "last"
    assert (tmp_path / "config.json").is_file()


def test_the_log_becomes_a_picture(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    train(SpladeStudent(checkpoint), TrainingSet([lists]), CONFIG, tmp_path)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_scores_are_not_rounded_to_bf16(checkpoint: Path, lists: Path) -> None:
    batch = Batches(TrainingSet([lists]), batch_size=3, n_passages=3, seed=0)[0]
    student = DenseStudent(checkpoint).eval()
    with torch.autocast("cpu", torch.bfloat16):
        queries, documents = student.encode(batch.queries, "query"), student.encode(batch.passages, "document")
    scores = queries.vectors @ documents.vectors.T
    expected = in_batch_nll(scores, torch.tensor([0, 3, 6]), excluded=torch.from_numpy(batch.excluded))
    assert losses_of(student, batch, Objective(in_batch=1), 1, bf16=True).terms["in_batch"] == expected
