"""The cache of a frozen trunk's states: what damages it, and runs that are killed while it fills."""

from __future__ import annotations

import json
import os
from io import FileIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lexmax.__main__ import main
from lexmax.index.errors import IndexFormatError, StorageError
from lexmax.retrieval.training.data import TrainingSet
from lexmax.retrieval.training.loop import TrainConfig, train
from lexmax.retrieval.training.objective import Objective
from lexmax.retrieval.training.students import trunk_states as states
from lexmax.retrieval.training.students.registry import make_student
from lexmax.retrieval.training.students.trunk_states import StateCache

ROWS = [torch.tensor([[1.0, 2.0]]).half(), torch.tensor([[3.0, 4.0], [5.0, 6.0]]).half()]
KEYS = [b"a" * 16, b"b" * 16]


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # as runs have it; a head that starts before them depends on it


@pytest.mark.parametrize("content", [b"not a cache at all, but some text", bytes(40)])
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "digest" / "keys.bin"
    path.parent.mkdir()
    path.write_bytes(content)
    for _ in range(2):  # and the first refusal holds no lock
        with pytest.raises(IndexFormatError, match=r"keys\.bin: expected records of a state cache"):
            StateCache(tmp_path, "digest", 2)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "digest").write_text("a file")
    with pytest.raises(StorageError, match="cannot open the states"):
        StateCache(tmp_path, "digest", 2)


def test_states_that_were_cut_while_open(tmp_path: Path) -> None:
    cache = StateCache(tmp_path, "digest", 2)
    cache.add(KEYS, ROWS)
    os.truncate(tmp_path / "digest" / "states.bin", 5)
    assert cache.get(KEYS[0]) is not None
    with pytest.raises(StorageError, match=r"states\.bin, offset 4: 1 bytes of 8"):
        cache.get(KEYS[1])
    cache.close()


class Filling(FileIO):
    """A file on a disk with ``room`` bytes, which like any takes a part of what does not fit."""

    room = 1 << 30

    def write(self, content: object) -> int:  # type: ignore[override]
        if not self.room:
            raise OSError(28, "No space left on device")
        n_taken = super().write(memoryview(content)[: min(3, self.room)])  # type: ignore[arg-type]
        self.room -= n_taken
        return n_taken


def test_writes_in_parts_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "FileIO", Filling)
    cache = StateCache(tmp_path, "digest", 2)
    cache.add(KEYS[:1], ROWS[:1])
    cache._states.room = 5  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"cannot write the states.*No space left"):
        cache.add(KEYS[1:], ROWS[1:])
    assert cache.get(KEYS[1]) is None
    cache.close()
    cache = StateCache(tmp_path, "digest", 2)  # with room again
    assert len(cache) == 1
    cache.add(KEYS[1:], ROWS[1:])
    for key, rows in zip(KEYS, ROWS, strict=True):
        found = cache.get(key)
        assert found is not None
        assert torch.equal(found, rows)
    cache.close()


@pytest.mark.parametrize("method", ["splade", "colbert", "dense"])
def test_a_killed_run_with_a_cache_ends_bit_identical(method: str, checkpoint: Path, lists: Path, tmp_path: Path) -> None:
    objective = Objective(kl=1, in_batch=0.5, score_scale=5)
    config = TrainConfig(objective=objective, n_steps=5, batch_size=4, n_passages=2, learning_rate=1e-3, warmup_steps=1,
                         checkpoint_every_steps=2)  # fmt: skip
    options = {"splade": {}, "colbert": {"dim": 8}, "dense": {"projection": 8}}[method]

    def run(name: str, killed_after: int) -> None:
        def progress(step: int) -> None:
            if step == killed_after:
                raise Killed

        student = make_student(method, checkpoint, states=tmp_path / name / "states", freeze_trunk=True, **options)
        try:
            train(student, TrainingSet([lists]), config, tmp_path / name, progress=progress)
        finally:
            student.cache.close()  # type: ignore[attr-defined]

    run("whole", -1)
    with pytest.raises(Killed):
        run("cut", 3)  # a step after the last checkpoint, whose states are kept
    run("cut", -1)
    weights = [
        load_file(next((tmp_path / name / "checkpoints").glob("step-*/weights.safetensors"))) for name in ("whole", "cut")
    ]
    assert weights[0]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("method", "own"), [("splade", ()), ("colbert", ("dim=8",)), ("dense", ("projection=8",))])
def test_runs_of_one_trunk_share_states(
    method: str, own: tuple[str, ...], checkpoint: Path, lists: Path, tmp_path: Path
) -> None:
    settings = [f"--set={setting}" for setting in ("freeze_trunk=true", "query_length=16", "document_length=16", *own)]
    common = ["train", method, "--model", str(checkpoint), "--data", str(lists), "--states", str(tmp_path / "states"),
              "--steps", "3", "--batch-size", "4", "--threads", "1", *settings]  # fmt: skip
    sizes, weights = [], []
    for name in ("first", "second"):
        assert main([*common, "--out", str(tmp_path / name)]) == 0
        sizes.append([path.stat().st_size for path in sorted((tmp_path / "states").glob("*/*.bin"))])
        weights.append((tmp_path / name / "last" / "model.safetensors").read_bytes())
        assert json.loads((tmp_path / name / "config.json").read_text())["student"]["freeze_trunk"]
    assert len(sizes[0]) == 2
    assert min(sizes[0]) > 0
    assert sizes[0] == sizes[1]  # nothing was computed again
    assert weights[0] == weights[1]


def test_states_of_a_learning_trunk_are_a_usage_error(
    checkpoint: Path, lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--model", str(checkpoint), "--data", str(lists), "--out", str(tmp_path / "run"), "--states", str(tmp_path)]
    assert main(["train", "dense", *common]) == 2
    assert "set freeze_trunk=true" in capsys.readouterr().err
