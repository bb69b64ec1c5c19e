"""The training commands as a user types them."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lexmax.__main__ import main
from lexmax.index.errors import DatasetError
from lexmax.retrieval.training.data import read_examples
from lexmax.retrieval.training.log import read_log
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig
from lexmax.retrieval.training.students.registry import CONFIGS
from lexmax.retrieval.training.train_command import LOSSES, METHODS
from lexmax.retrieval.training.validation import dev_documents

from .conftest import WORDS, write_lines
from .test_teachers import make_cross_encoder

SMALL = ["--steps", "6", "--batch-size", "4", "--learning-rate", "1e-3", "--threads", "1"]
SHORT = ["--set", "query_length=16", "--set", "document_length=16"]


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A BEIR folder of 30 documents and two judged queries."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "title": WORDS[i % 20], "text": f"the {WORDS[i % 17]}"} for i in range(30)]
    write_lines(folder / "corpus.jsonl", documents)
    write_lines(folder / "queries.jsonl", [{"_id": "q1", "text": "sun"}, {"_id": "q2", "text": "rain"}])
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td29\t1\nq2\td4\t2\nq2\tgone\t1\n")
    return folder


def test_the_light_names_are_those_of_the_heavy_modules() -> None:
    assert (*CONFIGS, "sae") == METHODS  # sae learns from texts alone, by a command of its own
    assert tuple(CONFIGS) == tuple(LOSSES)


@pytest.mark.parametrize("method", CONFIGS)
def test_every_method_trains_into_a_model(
    method: str, checkpoint: Path, lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    data = ["--model", str(checkpoint), "--data", str(lists), "--out", str(run), "--passages", "3"]
    assert main(["train", method, *data, *SMALL, *SHORT, "--loss", "kl=1", "--loop", "log_every=3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{run / 'last'}\n"
    assert "trained 6 steps on 12 examples" in captured.err
    assert (run / "last" / "model.safetensors").is_file()
    config = json.loads((run / "config.json").read_text())
    assert (config["n_steps"], config["n_passages"], config["log_every"], config["warmup_steps"]) == (6, 3, 3, 0)
    assert config["student"]["document_length"] == 16
    objective = config["objective"]
    assert (objective["kl"], objective["in_batch"], objective["ramp_steps"]) == (1, 1, 2)
    assert (objective["flops_documents"] > 0) == (method in ("splade", "inference-free"))
    assert objective["temperature"] == (0.05 if method == "dense" else 1)
    assert {"kl", "in_batch"} <= read_log(run / "log.jsonl")[-1].keys()


def test_idf_is_counted_in_the_passages_or_given(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    common = ["--model", str(checkpoint), "--data", str(lists), *SMALL, *SHORT]
    assert main(["train", "inference-free", *common, "--out", str(tmp_path / "a")]) == 0
    counted = json.loads((tmp_path / "a" / "last" / "idf.json").read_text())
    assert counted["lake"] > counted["cold"] > counted["the"] > 0  # in none, one in three, and most of the passages
    given = tmp_path / "idf.json"
    given.write_text(json.dumps({**counted, "lake": 9.0}))
    assert main(["train", "inference-free", *common, "--out", str(tmp_path / "b"), "--idf", str(given)]) == 0
    assert json.loads((tmp_path / "b" / "last" / "idf.json").read_text())["lake"] == 9.0
    assert main(["train", "splade", *common, "--out", str(tmp_path / "c"), "--idf", str(given)]) == 2


def test_validation_keeps_the_best(
    checkpoint: Path, lists: Path, dev: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    common = ["train", "dense", "--model", str(checkpoint), "--data", str(lists), "--out", str(run), *SMALL, *SHORT]
    validation = ["--dev", str(dev), "--dev-every", "2", "--dev-documents", "10", "--patience", "0"]
    assert main([*common, *validation]) == 0
    captured = capsys.readouterr()
    assert "2 queries, 10 documents" in captured.err
    assert captured.out == f"{run / 'best'}\n"
    validations = [line for line in read_log(run / "log.jsonl") if "validation" in line]
    assert [line["step"] for line in validations] == [2, 4, 6]
    best = max(validations, key=lambda line: line["validation"])
    assert f"best nDCG@10 {best['validation']:.4f} at step {best['step']}" in captured.err
    assert main([*common, *validation]) == 0  # finished: nothing is done again
    assert "6 of them earlier" in capsys.readouterr().err


def test_early_stopping(checkpoint: Path, lists: Path, dev: Path, tmp_path: Path) -> None:
    common = ["train", "dense", "--model", str(checkpoint), "--data", str(lists), "--out", str(tmp_path / "run"), *SHORT]
    still = ["--steps", "9", "--batch-size", "4", "--learning-rate", "1e-12", "--threads", "1"]
    assert main([*common, *still, "--dev", str(dev), "--dev-every", "1", "--patience", "2"]) == 0
    assert json.loads(next((tmp_path / "run" / "checkpoints").glob("*/state.json")).read_text())["step"] == 3
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "run" / "best"))
    name = "embeddings.word_embeddings.weight"
    assert after[name].allclose(before[f"bert.{name}"])


def test_dev_documents_keep_what_is_judged(dev: Path) -> None:
    qrels = {"q1": {"d29": 1}, "q2": {"d4": 2, "gone": 1}}
    assert len(dev_documents(str(dev), qrels)) == len(dev_documents(str(dev), qrels, 30)) == 30
    drawn = dev_documents(str(dev), qrels, 7)
    assert len(drawn) == 7
    assert {"d29", "d4"} <= drawn.keys()
    assert drawn == dev_documents(str(dev), qrels, 7)
    assert drawn["d29"] == f"{WORDS[9]} the {WORDS[12]}"
    assert dev_documents(str(dev), qrels, 1).keys() == {"d29", "d4"}
    with pytest.raises(ValueError, match="limit is -1"):
        dev_documents(str(dev), qrels, -1)
    with pytest.raises(DatasetError):
        dev_documents(str(dev / "nowhere"), qrels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "kll=1"], "--loss does not know 'kll'; there are flops_apart, flops_documents, flops_min_nonzeros"),
        (["--loop", "n_steps=1"], "--loop does not know 'n_steps'; there are accumulate, bf16"),
        (["--set", "query_side=idf"], "--set does not know 'query_side'; there are activation"),
        (["--set", "document_length=long"], "takes a whole number"),
        (["--loss", "kl=-1"], "weights"),
        (["--passages", "9"], "n_passages is 9"),
        (["--data", "{tmp}/none.jsonl"], "none.jsonl: no such file"),
        (["--dev", "{tmp}"], "no split 'dev'"),
        (["--dev", "{tmp}", "--dev-every", "0"], "--dev-every is 0"),
        (["--model", "{tmp}/none"], "no model folder"),
        (["--device", "nosuch"], "device 'nosuch' is not here"),
        (["--loss", "tct=1"], "the loss tct and a teacher go together"),
    ],
)
def test_train_says_what_is_wrong(
    arguments: list[str], message: str, checkpoint: Path, lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", str(checkpoint), "--data", str(lists), "--out", str(tmp_path / "run"), *SMALL, *SHORT]
    assert main(["train", "splade", *common, *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "last").exists()


def test_negatives_of_triplets_are_read_without_being_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    records = [{"query": word, "positive": f"{word} day", "negative": ["the sea", "a bus"]} for word in WORDS[4:12]]
    data = write_lines(tmp_path / "triplets.jsonl", records)
    common = ["train", "dense", "--model", str(checkpoint), "--data", str(data), "--out", str(tmp_path / "run")]
    assert main([*common, *SMALL, *SHORT]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["n_passages"] == 3


def test_a_colbert_teaches_beside_the_student(
    checkpoint: Path, lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ColbertStudent(checkpoint, ColbertStudentConfig(dim=8, query_length=8)).save(tmp_path / "colbert")
    common = ["train", "dense", "--model", str(checkpoint), "--data", str(lists), "--loss", "tct=1", *SMALL, *SHORT]
    run = [*common, "--set", "normalize=false", "--loss", "temperature=1", "--loop", "log_every=2"]
    assert main([*run, "--out", str(tmp_path / "run"), "--teacher", str(tmp_path / "colbert")]) == 0
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["tct"] > 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["teacher"]["kind"] == "ColbertStudent"
    assert main([*common, "--out", str(tmp_path / "other"), "--teacher", str(checkpoint)]) == 2
    assert "is no ColBERT" in capsys.readouterr().err


def test_scores_that_no_loss_uses_are_mentioned(
    checkpoint: Path, lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", str(checkpoint), "--data", str(lists), "--out", str(tmp_path / "run"), *SMALL, *SHORT]
    assert main(["train", "dense", *common]) == 0
    assert "the data has scores of cross, dense, which no loss uses" in capsys.readouterr().err


def test_from_pairs_to_scored_lists(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    topics = ["sun", "rain", "snow"]
    passages = [f"{topic} in the {place}" for topic in topics for place in ("city", "hill", "lake", "sea")]
    pairs = write_lines(tmp_path / "pairs.jsonl", [{"query": text.split()[0], "positive": text} for text in passages])
    corpus = write_lines(tmp_path / "corpus.jsonl", [{"_id": str(i), "text": text} for i, text in enumerate(passages)])
    assert main(["build", "--encoder", "bm25", str(corpus), "--out", str(tmp_path / "idx")]) == 0
    index = ["--index", str(tmp_path / "idx")]
    assert main(["augment", str(pairs), *index, "--out", str(tmp_path / "kept.jsonl"), "-k", "2"]) == 0
    assert "kept 6 of 12 pairs" in capsys.readouterr().err  # two of each topic's four
    lists, scored = tmp_path / "lists.jsonl", tmp_path / "scored.jsonl"
    kept = ["mine", str(tmp_path / "kept.jsonl"), *index, "--out", str(lists)]
    assert main([*kept, "--negatives", "9"]) == 1
    assert main([*kept, "--negatives", "2"]) == 0
    assert "wrote 6 lists" in capsys.readouterr().err
    cross = make_cross_encoder(checkpoint, tmp_path / "cross", 1)
    teachers = ["--cross-encoder", str(cross), "--bi-encoder", f"mean={checkpoint}", "--pooling", "mean", "--max-length", "64"]
    assert main(["score", str(lists), "--out", str(scored), *teachers]) == 0
    assert "6 lists with scores of cross, mean" in capsys.readouterr().err
    other = ["--bi-encoder", f"cls={checkpoint}", "--pooling", "cls", "--prompt", "the ", "--max-length", "64"]
    assert main(["score", str(scored), "--out", str(scored), *other]) == 0
    examples = list(read_examples(scored))
    assert [set(example.scores) for example in examples] == [{"cross", "mean", "cls"}] * 6
    assert examples[0].scores["mean"] != examples[0].scores["cls"]
    assert len(list((tmp_path / "scored.jsonl.cache").iterdir())) == 3


def test_score_wants_teachers_of_different_names(lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["score", str(lists), "--out", str(tmp_path / "out.jsonl")]
    for teachers in ([], ["--cross-encoder", "a=x", "--bi-encoder", "a=y"]):
        assert main([*common, *teachers]) == 2
        assert "each under a NAME of its own" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "mine", "score", "augment"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  lexmax {command} " in capsys.readouterr().out
