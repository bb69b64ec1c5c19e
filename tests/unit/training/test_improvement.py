"""Training does what it is for: rankings of unseen texts become right, and a run that was killed ends as if it had not been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lexmax.__main__ import main
from lexmax.retrieval.training.data import TrainingSet
from lexmax.retrieval.training.loop import TrainConfig, train
from lexmax.retrieval.training.objective import Objective
from lexmax.retrieval.training.students.registry import make_student
from lexmax.retrieval.training.validation import ndcg_at_10

from .conftest import VOCABULARY, WORDS, write_lines

TOPICS = WORDS[4:20]
OTHERS = [TOPICS[(5 * i + 3) % 16] for i in range(16)]  # what a topic is asked for by: never its own name
FLOORS = {"splade": 0.5, "inference-free": 0.7, "colbert": 0.9, "dense": 0.5, "gaussian": 0.5, "hypencoder": 0.5}


@pytest.fixture(scope="module")
def blank(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of small random weights, without dropout, which learns in a few steps."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": len(VOCABULARY),
    }
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder = tmp_path_factory.mktemp("blank")
    BertForMaskedLM(BertConfig(initializer_range=0.1, **sizes, **dropout)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(checkpoint / name, folder / name)
    return folder


@pytest.mark.parametrize("method", FLOORS)
def test_training_improves_the_ranking(method: str, blank: Path, tmp_path: Path) -> None:
    """Queries name a document by another word, so an untrained network ranks by chance; the floors are stated."""
    queries, documents = [f"{other} {other}" for other in OTHERS], [f"{topic} {topic}" for topic in TOPICS]
    pairs = [{"query": query, "positive": document} for query, document in zip(queries, documents, strict=True)]
    student = make_student(method, blank, texts=documents)
    judged = [{number: 1.0} for number in range(16)]
    assert ndcg_at_10(student.eval(), queries, documents, judged) < 0.4
    objective = Objective(temperature=0.05 if method == "dense" else 1.0, flops_documents=1e-3 if student.sparse else 0.0)
    config = TrainConfig(objective=objective, n_steps=100, batch_size=16, learning_rate=5e-3, warmup_steps=10)
    train(student, TrainingSet([write_lines(tmp_path / "pairs.jsonl", pairs)]), config, tmp_path / "run")
    assert ndcg_at_10(student.eval(), queries, documents, judged) > FLOORS[method]


def test_a_run_that_is_killed_goes_on_to_bit_identical_weights(checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    """kill -9 of the command itself, between two checkpoints."""
    command = ["train", "splade", "--model", str(checkpoint), "--data", str(lists), "--steps", "100", "--batch-size", "4",
               "--passages", "2", "--threads", "1", "--loss", "kl=1", "--loop", "checkpoint_every_steps=10"]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, "-m", "lexmax", *command, "--out", str(cut)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not (cut / "checkpoints" / "step-00000020" / "state.json").is_file():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (cut / "last").exists()
    for out in (whole, cut):
        assert main([*command, "--out", str(out)]) == 0
    for name in ("weights.safetensors", "optimizer.safetensors"):
        one, other = (load_file(next((out / "checkpoints").glob("step-00000100")) / name) for out in (whole, cut))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert (whole / "last" / "model.safetensors").read_bytes() == (cut / "last" / "model.safetensors").read_bytes()
