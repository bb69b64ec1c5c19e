"""The training loop: AdamW, warm-up and linear decay, checkpoints, a log, early stopping.

All randomness of a step is a function of the seed and the step: the batch, the drawn negatives, dropout. A run that was
killed goes on from its last checkpoint, and ends with the weights of one that was not, bit for bit, with the same number
of threads. A run's folder::

    config.json     the configuration, the digest of the data, and the student
    log.jsonl       a line every ``log_every`` steps, and one a validation
    curve.png       the log as a picture, where matplotlib is installed
    checkpoints/    see `.checkpoints`
    best/, last/    the student in its public layout: at the best validation, and at the end
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...index.errors import LexmaxError
from ..encoders.networks.loading import weights_digest
from ..progress import Progress
from .checkpoints import load_checkpoint, save_checkpoint, trained
from .curve import plot_log
from .data import Batches, TrainingSet
from .log import TrainingLog
from .objective import Objective, losses_of
from .students.base import Student

Validate = Callable[[Student], float]
"""Measures a student, in eval mode and without gradients, such as nDCG@10; more is better."""

# What a run may change when it goes on: it decides when things are written, not what.
FREE = ("checkpoint_every_s", "checkpoint_every_steps", "n_threads")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    Attributes
    ----------
    objective : Objective
    n_steps : int
        Steps of the optimizer.
    batch_size, n_passages : int
        Queries in a batch, and passages of each: the positive and ``n_passages - 1`` drawn others.
    accumulate : int
        Batches a step; in-batch negatives stay inside a batch.
    learning_rate, weight_decay, clip_norm : float
        Of AdamW; gradients are scaled down to a norm of ``clip_norm``, 0 for never.
    warmup_steps : int
        The learning rate rises linearly so long, then falls linearly to 0 at the end.
    bf16 : bool
        Encode under autocast to bfloat16; weights, scores and losses stay float32.
    seed, n_threads : int
    log_every : int
        Steps.
    validate_every : int
        Steps; 0: never. The last step is validated too.
    patience : int
        Stop after so many validations without a better one; 0: never.
    checkpoint_every_s : float
        Seconds.
    checkpoint_every_steps : int
        Steps, whatever the time; 0: by time alone.
    """

    objective: Objective = field(default_factory=Objective)
    n_steps: int
    batch_size: int = 32
    n_passages: int = 1
    accumulate: int = 1
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup_steps: int = 0
    bf16: bool = False
    seed: int = 0
    n_threads: int = 1
    log_every: int = 50
    validate_every: int = 0
    patience: int = 0
    checkpoint_every_s: float = 600.0
    checkpoint_every_steps: int = 0

    def __post_init__(self) -> None:
        if min(self.n_steps, self.batch_size, self.n_passages, self.accumulate, self.n_threads, self.log_every) < 1:
            raise ValueError("n_steps, batch_size, n_passages, accumulate, n_threads and log_every must be >= 1")
        counts = (self.warmup_steps, self.validate_every, self.patience, self.checkpoint_every_steps)
        if min(*counts, self.weight_decay, self.clip_norm, self.seed) < 0 or self.learning_rate <= 0:
            raise ValueError("learning_rate must be > 0, and no other number below 0")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 1."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        return self.learning_rate * (self.n_steps - step + 1) / max(1, self.n_steps - self.warmup_steps)


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """How a run ended.

    Attributes
    ----------
    model : Path
        The best student, or without validation the last.
    n_steps, n_resumed : int
        Steps done in all, and of them by earlier runs.
    best_score, best_step : float, int
        Of the best validation; None and 0 without.
    elapsed_s : float
        Of this run.
    """

    model: Path
    n_steps: int
    n_resumed: int
    best_score: float | None
    best_step: int
    elapsed_s: float


def train(
    student: Student, data: TrainingSet, config: TrainConfig, out: Path | str, *, validate: Validate | None = None,
    teacher: Student | None = None, progress: Progress | None = None,
) -> TrainReport:  # fmt: skip
    """Train a student; called again after an interruption, go on after the last checkpoint.

    Parameters
    ----------
    student : Student
        Its weights change.
    data : TrainingSet
    config : TrainConfig
    out : Path or str
        The run's folder, made anew, or that of an interrupted run with the same student, data and configuration.
    validate : callable, optional
        Called every ``validate_every`` steps.
    teacher : Student, optional
        A ColBERT that does not learn; the loss ``tct`` runs it on every batch.
    progress : callable, optional
        Called with the number of steps done.

    Raises
    ------
    ValueError
        The objective distils and the data has no scores; validation is asked for without a way to validate, or ``tct``
        without a teacher, or the other way round; or numbers that the data cannot serve.
    FileExistsError
        ``out`` is of a run with another configuration, other data or another student.
    StorageError
        A checkpoint is damaged, or of another student.
    LexmaxError
        The loss is no longer a number.
    """
    if config.objective.distils and (not data.teachers or config.n_passages < 2):
        raise ValueError("the objective distils: the data must have teachers' scores, and n_passages must be >= 2")
    if (validate is None) != (config.validate_every == 0):
        raise ValueError("validate_every and validate go together: give both, or neither")
    if (teacher is None) != (config.objective.tct == 0):
        raise ValueError("the loss tct and a teacher go together: give both, or neither")
    with torch_of_its_own(config.n_threads):
        run = _Run(student, data, config, Path(out), teacher)
        start, n_resumed = time.monotonic(), run.step
        student.train()
        while run.step < config.n_steps and not run.out_of_patience:
            run.advance()
            if validate is not None and (run.step % config.validate_every == 0 or run.step == config.n_steps):
                run.validate(validate)
            run.checkpoint_when_due()
            if progress:
                progress(run.step)
        model = run.finish()
    return TrainReport(
        model=model, n_steps=run.step, n_resumed=n_resumed, best_score=run.best_score, best_step=run.best_step,
        elapsed_s=time.monotonic() - start,
    )  # fmt: skip


@contextmanager
def torch_of_its_own(n_threads: int) -> Iterator[None]:
    """Give a run ``n_threads`` and random numbers of torch, and the process what it had before."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class _Run:
    """The state of a run between steps."""

    def __init__(
        self, student: Student, data: TrainingSet, config: TrainConfig, out: Path, teacher: Student | None
    ) -> None:  # fmt: skip
        self.student, self.config, self.out = student, config, out
        self.teacher = teacher.eval() if teacher is not None else None
        self.batches = Batches(data, batch_size=config.batch_size, n_passages=config.n_passages, seed=config.seed)
        _claim(out, config, data, student, teacher)
        self.optimizer = _optimizer(student, config)
        state = load_checkpoint(out / "checkpoints", student, self.optimizer) or {}
        self.step: int = state.get("step", 0)
        self.best_score: float | None = state.get("best_score")
        self.best_step: int = state.get("best_step", 0)
        self.n_stale: int = state.get("n_stale", 0)
        self.log = TrainingLog(out / "log.jsonl", self.step)
        self._saved_step, self._saved_s = self.step, time.monotonic()

    @property
    def out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.n_stale

    def advance(self) -> None:
        """Make one step of the optimizer."""
        config, step = self.config, self.step + 1
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
        for part in range(config.accumulate):
            batch = self.batches[self.step * config.accumulate + part]
            losses = losses_of(self.student, batch, config.objective, step, bf16=config.bf16, teacher=self.teacher)
            total = losses.total
            if not torch.isfinite(total):
                raise LexmaxError(f"the loss is {total.item()} at step {step}: lower learning_rate or the weights")
            (total / config.accumulate).backward()  # type: ignore[no-untyped-call]
            numbers = {name: float(term.detach()) for name, term in losses.terms.items()}
            self.log.add({"loss": float(total.detach()), **numbers, **losses.nonzeros}, n_passages=len(batch.passages))
        parameters = list(trained(self.student).values())
        if config.clip_norm:
            self.log.add_norm(float(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)))
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step = step
        if step % config.log_every == 0 or step == config.n_steps:
            epoch = step * config.accumulate / self.batches.per_epoch
            self.log.write(step, epoch=epoch, learning_rate=config.rate(step))

    def validate(self, validate: Validate) -> None:
        """Measure the student, and save it when it is the best so far."""
        self.student.eval()
        with torch.inference_mode():
            score = float(validate(self.student))
        self.student.train()
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_step, self.n_stale = score, self.step, 0
            self.student.save(self.out / "best")
        else:
            self.n_stale += 1
        self.log.write_validation(self.step, score, self.best_score)

    def checkpoint_when_due(self) -> None:
        config, now = self.config, time.monotonic()
        by_steps = config.checkpoint_every_steps and self.step % config.checkpoint_every_steps == 0
        if by_steps or now - self._saved_s >= config.checkpoint_every_s:
            self._checkpoint()

    def finish(self) -> Path:
        """Save what there is, and return the folder of the model to use."""
        if self._saved_step != self.step:
            self._checkpoint()
        self.student.eval()
        self.student.save(self.out / "last")
        plot_log(self.out / "log.jsonl", self.out / "curve.png")
        return self.out / ("last" if self.best_score is None else "best")

    def _checkpoint(self) -> None:
        state = {
            "step": self.step,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "n_stale": self.n_stale,
        }
        save_checkpoint(self.out / "checkpoints", self.student, self.optimizer, state)
        self._saved_step, self._saved_s = self.step, time.monotonic()


def _optimizer(student: Student, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW without decay of biases and norms, which are the parameters of one axis."""
    parameters = list(trained(student).values())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _claim(out: Path, config: TrainConfig, data: TrainingSet, student: Student, teacher: Student | None) -> None:
    """Write what the run is, or see that an earlier run in the folder is the same."""
    record: dict[str, Any] = {**asdict(config), "n_examples": len(data), "data": data.digest, "teachers": list(data.teachers)}
    record["student"] = _described(student)
    if teacher is not None:
        record["teacher"] = _described(teacher)
    path = out / "config.json"
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(k for k in {*record, *earlier} - set(FREE) if record.get(k) != earlier.get(k))
        if changed:
            raise FileExistsError(f"{out} holds a run with another {', '.join(changed)}: choose another folder, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _described(student: Student) -> dict[str, Any]:
    return {"kind": type(student).__name__, "start": _start_digest(student), **asdict(student.config)}


def _start_digest(student: Student) -> str:
    """Hash of the checkpoint it started from, and of what does not learn, such as a given idf: checkpoints leave it out."""
    digest = hashlib.sha256(weights_digest(student.folder).encode())
    for path in sorted(student.root.rglob("*")):  # its settings and the weights of its modules
        if path.suffix == ".json" or path.name in ("artifact.metadata", "model.safetensors"):
            digest.update(f"{path.relative_to(student.root)}".encode() + path.read_bytes())
    for name, parameter in student.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode() + parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
