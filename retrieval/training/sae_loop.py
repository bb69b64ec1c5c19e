"""Trains a sparse autoencoder on the vectors of a corpus, without labels; an interrupted run ends with the same weights.

All randomness of a step is a function of the seed and the step. A run's folder::

    config.json     the configuration, the base encoder, and the digest of the texts
    vectors/        see `.sae_vectors`
    log.jsonl       a line every ``log_every`` steps; curve.png shows it, where matplotlib is installed
    checkpoints/    see `.checkpoints`
    model/          the autoencoder as `encoders.sae` reads it
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...index.errors import LexmaxError
from ..encoders.checkpoints.sae import BaseFiles
from ..progress import Progress
from .checkpoints import load_checkpoint, save_checkpoint
from .curve import plot_log
from .log import TrainingLog
from .loop import torch_of_its_own
from .sae import SparseAutoencoder
from .sae_model import SaeModelConfig, save_model
from .sae_vectors import TrainingVectors

N_MEASURED = 100_000  # vectors that mean and scale are of
N_WARMUP = 50


@dataclass(frozen=True, kw_only=True)
class SaeTrainConfig:
    """How an autoencoder is trained.

    Attributes
    ----------
    n_latents, n_active : int
        Latents, and how many of them a vector has.
    n_steps, batch_size : int
        Steps of the optimizer, and vectors of each.
    learning_rate : float
        Of Adam; it rises for 50 steps, and falls linearly to 0 over the last third.
    dead_after : int
        Steps after which a latent that no vector had counts as dead.
    seed, n_threads, log_every : int
    checkpoint_every_s, checkpoint_every_steps
        As of `.loop.TrainConfig`.
    """

    n_latents: int = 4096
    n_active: int = 8
    n_steps: int
    batch_size: int = 2048
    learning_rate: float = 1e-3
    dead_after: int = 100
    seed: int = 0
    n_threads: int = 1
    log_every: int = 50
    checkpoint_every_s: float = 600.0
    checkpoint_every_steps: int = 0

    def __post_init__(self) -> None:
        if min(self.n_steps, self.batch_size, self.dead_after, self.n_threads, self.log_every) < 1:
            raise ValueError("n_steps, batch_size, dead_after, n_threads and log_every must be >= 1")
        if min(self.seed, self.checkpoint_every_steps) < 0 or self.learning_rate <= 0:
            raise ValueError("learning_rate must be > 0, and seed and checkpoint_every_steps not below 0")
        if not 1 <= self.n_active <= self.n_latents:
            raise ValueError(f"{self.n_active} active of {self.n_latents} latents: expected 1 or more, and not more than all")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 1."""
        rest = 3 * (self.n_steps - step + 1) / self.n_steps
        return self.learning_rate * min(1.0, step / N_WARMUP, rest)


FREE = {"n_threads", "log_every", "checkpoint_every_s", "checkpoint_every_steps"}
"""Settings that change no weight but in last bits."""


@dataclass(frozen=True, kw_only=True)
class SaeReport:
    """How a run ended.

    Attributes
    ----------
    model : Path
    n_steps, n_resumed : int
        Steps done in all, and of them by earlier runs.
    n_texts, n_vectors : int
    unexplained : float
        Share of the variance of all vectors that is not reconstructed.
    n_dead : int
        Latents that no vector has.
    elapsed_s : float
        Of this run.
    """

    model: Path
    n_steps: int
    n_resumed: int
    n_texts: int
    n_vectors: int
    unexplained: float
    n_dead: int
    elapsed_s: float


def train_sae(
    base: Any, files: BaseFiles, texts: Sequence[str], config: SaeTrainConfig, model: SaeModelConfig, out: Path | str, *,
    encoding: Progress | None = None, progress: Progress | None = None,
) -> SaeReport:  # fmt: skip
    """Train an autoencoder; called again after an interruption, go on where that one was.

    Parameters
    ----------
    base : ColbertEncoder or DenseEncoder
        Whose vectors are decomposed.
    files : BaseFiles
        How a checkpoint names it.
    texts : sequence of str
        Documents, as `.sae_vectors.drawn` draws them.
    config : SaeTrainConfig
    model : SaeModelConfig
        What texts' activations become in the checkpoint.
    out : Path or str
        The run's folder, made anew, or that of an interrupted run of the same.
    encoding, progress : callable, optional
        Called with the number of texts encoded, and of steps done.

    Raises
    ------
    FileExistsError
        ``out`` is of a run with another configuration, other texts or another base.
    StorageError
        A checkpoint or the vectors cannot be read or written.
    LexmaxError
        The loss is no longer a number.
    """
    out, start = Path(out), time.monotonic()
    _claim(out, files, base, texts, config)
    vectors = TrainingVectors(out / "vectors", base, texts)
    vectors.fill(encoding)
    with torch_of_its_own(config.n_threads):
        run = _Run(vectors, config, out)
        n_resumed = run.step
        while run.step < config.n_steps:
            run.advance()
            run.checkpoint_when_due()
            if progress:
                progress(run.step)
        run.finish()
        facts = save_model(run.network, vectors, files, config, model, out / "model")
    return SaeReport(
        model=out / "model", n_steps=run.step, n_resumed=n_resumed, n_texts=len(texts), n_vectors=len(vectors.vectors),
        unexplained=facts.unexplained, n_dead=facts.n_dead, elapsed_s=time.monotonic() - start,
    )  # fmt: skip


class _Run:
    """The state of a run between steps."""

    def __init__(self, vectors: TrainingVectors, config: SaeTrainConfig, out: Path) -> None:
        self.config, self.out, self._vectors = config, out, vectors.vectors
        some = self._batch(0, N_MEASURED)
        mean = some.mean(0)
        scale = 1 / float((some - mean).square().sum(1).mean().sqrt().clamp(min=1e-12))
        sizes = (self._vectors.shape[1], config.n_latents, config.n_active)
        self.network = SparseAutoencoder(*sizes, mean=mean, scale=scale, seed=config.seed)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        state = load_checkpoint(out / "checkpoints", self.network, self.optimizer) or {}
        self.step: int = state.get("step", 0)
        self._idle = torch.tensor(state.get("idle_steps", [0] * config.n_latents))
        self.log = TrainingLog(out / "log.jsonl", self.step)
        self._saved_step, self._saved_s = self.step, time.monotonic()

    def advance(self) -> None:
        """Make one step of the optimizer."""
        config, step = self.config, self.step + 1
        dead = (self._idle >= config.dead_after).nonzero()[:, 0]
        losses = self.network.losses(self._batch(step, config.batch_size), dead)
        if not torch.isfinite(losses.total):
            raise LexmaxError(f"the loss is {losses.total.item()} at step {step}: lower --learning-rate")
        losses.total.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.network.to_unit_columns()
        self._idle += 1
        self._idle[losses.active[losses.values > 0]] = 0
        numbers = {"unexplained": losses.unexplained.item(), "dead_loss": losses.dead.item(), "n_dead": float(len(dead))}
        self.log.add(numbers, n_passages=config.batch_size)
        self.step = step
        if step % config.log_every == 0 or step == config.n_steps:
            self.log.write(step, learning_rate=config.rate(step))

    def checkpoint_when_due(self) -> None:
        config, now = self.config, time.monotonic()
        by_steps = config.checkpoint_every_steps and self.step % config.checkpoint_every_steps == 0
        if by_steps or now - self._saved_s >= config.checkpoint_every_s:
            self._checkpoint()

    def finish(self) -> None:
        if self._saved_step != self.step:
            self._checkpoint()
        plot_log(self.out / "log.jsonl", self.out / "curve.png")

    def _batch(self, step: int, size: int) -> Tensor:
        """Vectors drawn for a step, (size, dim) float32."""
        source = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        numbers = torch.randint(len(self._vectors), (size,), generator=source).sort().values  # in the order of the disk
        return torch.from_numpy(self._vectors[numbers.numpy()]).float()

    def _checkpoint(self) -> None:
        state = {"step": self.step, "idle_steps": self._idle.tolist()}
        save_checkpoint(self.out / "checkpoints", self.network, self.optimizer, state)
        self._saved_step, self._saved_s = self.step, time.monotonic()


def _claim(out: Path, files: BaseFiles, base: Any, texts: Sequence[str], config: SaeTrainConfig) -> None:
    """Write what the run is, or see that an earlier run in the folder is the same."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)} ".encode() + text.encode(errors="surrogatepass"))
    record: dict[str, Any] = {**asdict(config), "n_texts": len(texts), "texts": digest.hexdigest(), "base": asdict(files)}
    record["vectors"] = base.fingerprint  # in the precision of this run
    path = out / "config.json"
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*record, *earlier} - FREE if record.get(name) != earlier.get(name))
        if changed:
            raise FileExistsError(f"{out} holds a run with another {', '.join(changed)}: choose another folder, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
