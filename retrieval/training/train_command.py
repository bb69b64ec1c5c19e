"""``lexmax train``: from options to a student, a training set and a run.

This module is read at every start of the command line, so whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..commands.options import add_device
from ..terminal import progress_bar, require_models, say, settings_of, write

if TYPE_CHECKING:
    from .data import TrainingSet
    from .loop import TrainConfig, TrainReport, Validate
    from .students.base import Student

DATA_HELP = "training files, JSON lines of {query, positive}, with {negative}, or {query, passages, scores, positive}, also .gz"
MOST_PASSAGES = 8  # of a query in a batch, where nothing is said
N_QUERIES = 2_000  # on which a new projection starts
METHODS = ("splade", "inference-free", "colbert", "dense", "gaussian", "hypencoder", "sae")
LOSSES: dict[str, dict[str, float]] = {
    "splade": {"flops_queries": 5e-5, "flops_documents": 3e-5},
    "inference-free": {"flops_documents": 3e-5},
    "colbert": {},
    "dense": {"temperature": 0.05},
    "gaussian": {},
    "hypencoder": {},
}
"""What is not `Objective`'s default: without a penalty sparse vectors are not sparse, and cosines want a low temperature."""

OWN_OPTIONS = {
    "objective", "n_steps", "batch_size", "n_passages", "learning_rate", "seed", "n_threads", "validate_every", "patience",
}  # fmt: skip


class Judged(Protocol):
    """Queries and judgments of a test collection."""

    @property
    def queries(self) -> Mapping[str, str]:
        """query_id -> text."""
        ...

    @property
    def qrels(self) -> Mapping[str, Mapping[str, int]]:
        """query_id -> doc_id -> relevance."""
        ...


LoadDataset = Callable[[str, str], Judged]
"""Loads the queries of a BEIR folder and a split; it comes from above, where evaluation lives."""


def add_train_options(train: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    train.add_argument("method", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    train.add_argument("--model", required=True, metavar="DIR_OR_ID", help="the checkpoint to start from")
    train.add_argument("--data", nargs="+", metavar="FILE", help=f"{DATA_HELP}; of all methods but sae")
    train.add_argument("--out", required=True, metavar="DIR", help="folder of the run; an interrupted run goes on")
    train.add_argument("--steps", type=int, default=10_000, metavar="N", help="of the optimizer (default 10000)")
    train.add_argument(
        "--batch-size", type=int, metavar="N", help="queries in a batch, of sae vectors (default 32, of sae 2048)"
    )
    train.add_argument("--passages", type=int, metavar="N",
                       help="passages of each query: the positive and others of its list, drawn anew each time (default: those "
                       f"of the shortest list, up to {MOST_PASSAGES})")  # fmt: skip
    train.add_argument("--learning-rate", type=float, metavar="R", help="(default 2e-5, of sae 1e-3)")
    train.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    train.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="(default: all cores)")
    train.add_argument("--idf", metavar="FILE", help="query weights of inference-free: an idf.json (default: counted in DATA)")
    train.add_argument("--states", metavar="DIR", help="where the states of a trunk with --set freeze_trunk=true are kept, for "
                       "the next epoch and the next run (default: computed anew)")  # fmt: skip
    train.add_argument("--teacher", metavar="DIR_OR_ID", help="the ColBERT of --loss tct=1, which scores all of each batch")
    add_device(train)
    group = train.add_argument_group("settings, each repeatable; an unknown NAME lists the known ones")
    group.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                       help="of the encoder: document_length=180, freeze_embeddings=true, ...")  # fmt: skip
    group.add_argument("--loss", action="append", default=[], metavar="NAME=VALUE",
                       help="weights of the losses: in_batch=1 (default), kl=1, flops_documents=1e-4, ...")  # fmt: skip
    group.add_argument("--loop", action="append", default=[], metavar="NAME=VALUE",
                       help="of the loop: bf16=true, warmup_steps=500 (default: a tenth of the steps), ...")  # fmt: skip
    group = train.add_argument_group("sparse autoencoders", "train sae --model MODEL --corpus FILE... learns without labels")
    group.add_argument("--corpus", nargs="+", metavar="FILE", help="texts that it learns from: what `build` takes")
    group.add_argument("--documents", type=int, metavar="N", help="texts drawn from them at random (default 20000)")
    group.add_argument("--latents", type=int, metavar="N", help="terms of the vocabulary that is learnt (default 4096)")
    group.add_argument("--active", type=int, metavar="N", help="latents of each token, or of each dense vector (default 8)")
    group = train.add_argument_group("validation")
    group.add_argument("--dev", metavar="FOLDER", help="a BEIR folder; the model with the best nDCG@10 is kept in DIR/best")
    group.add_argument("--dev-split", default="dev", metavar="SPLIT", help="which of its judgments (default dev)")
    group.add_argument("--dev-every", type=int, default=500, metavar="N", help="steps between validations (default 500)")
    group.add_argument("--dev-documents", type=int, default=0, metavar="N",
                       help="judged documents, and others up to so many in all (default: the whole corpus)")  # fmt: skip
    group.add_argument("--patience", type=int, default=5, metavar="N",
                       help="stop after so many validations without a better one; 0: never (default 5)")  # fmt: skip


def run_train(options: argparse.Namespace, *, load_dataset: LoadDataset) -> int:
    """Train, and write the folder of the model on stdout."""
    require_models("lexmax train")
    if options.method == "sae":
        from .sae_command import run_train_sae

        return run_train_sae(options)
    if not options.data:
        raise ValueError(f"train {options.method} needs --data")
    if wrong := [name for name in ("corpus", "documents", "latents", "active") if getattr(options, name) is not None]:
        raise ValueError(f"--{wrong[0]} is for sae, not for {options.method}")
    from ..encoders.networks.devices import check_device

    check_device(options.device)
    from torch import set_num_threads

    from .data import TrainingSet
    from .loop import train
    from .students.registry import CONFIGS

    if options.idf and options.method != "inference-free":
        raise ValueError(f"--idf is for inference-free, not for {options.method}")
    settings = settings_of(CONFIGS[options.method], options.set, "--set", without={"query_side"})
    config = _train_config(options)
    data = TrainingSet(options.data)
    if options.passages is None:
        config = replace(config, n_passages=min(MOST_PASSAGES, data.n_passages))
        say(f"{config.n_passages} passages of each query, of {data.n_passages} or more: --passages")
    set_num_threads(options.threads)  # also for what starts new layers
    if data.teachers and not config.objective.distils:
        say(f"the data has scores of {', '.join(data.teachers)}, which no loss uses: --loss kl=1 does")
    student, teacher = _student(options, settings), _teacher(options)
    validate = _validation(options, load_dataset, bf16=config.bf16) if options.dev else None
    with progress_bar("steps", total=config.n_steps) as bar:
        report = train(student, data, config, options.out, validate=validate, teacher=teacher, progress=bar)
    _tell_training(report, data)
    write(str(report.model))
    return 0


def _train_config(options: argparse.Namespace) -> TrainConfig:
    from .loop import TrainConfig
    from .objective import Objective

    losses: dict[str, Any] = {"ramp_steps": max(1, options.steps // 3), **LOSSES[options.method]}
    loop: dict[str, Any] = {"warmup_steps": options.steps // 10}
    losses |= settings_of(Objective, options.loss, "--loss")
    loop |= settings_of(TrainConfig, options.loop, "--loop", without=OWN_OPTIONS)
    if options.dev and options.dev_every < 1:
        raise ValueError(f"--dev-every is {options.dev_every}: it must be >= 1")
    return TrainConfig(
        objective=Objective(**losses), n_steps=options.steps, batch_size=_given(options.batch_size, 32),
        n_passages=_given(options.passages, 1), learning_rate=_given(options.learning_rate, 2e-5),
        seed=options.seed, n_threads=options.threads,
        validate_every=options.dev_every if options.dev else 0, patience=options.patience if options.dev else 0, **loop,
    )  # fmt: skip


def _given(value: float | None, default: Any) -> Any:
    return default if value is None else value


def _student(options: argparse.Namespace, settings: dict[str, Any]) -> Student:
    from ..encoders.loader import resolve_model
    from .data import read_examples
    from .students.registry import make_student

    texts: Iterable[str] = ()
    queries: list[str] = []
    if _counts_idf(options) or settings.get("new_head") or settings.get("freeze_trunk"):
        lines = (example for path in options.data for example in read_examples(path))
        examples = list(lines if _counts_idf(options) else islice(lines, N_QUERIES))
        texts = dict.fromkeys(passage for example in examples for passage in example.passages)
        queries = list(dict.fromkeys(example.query for example in examples[:N_QUERIES]))
    goes_on = any(Path(options.out, "checkpoints").glob("*/state.json"))  # whose weights replace those of a start
    return make_student(
        options.method, resolve_model(options.model), idf=options.idf, texts=texts, queries=queries, states=options.states,
        seed=options.seed, start=not goes_on, device=options.device, **settings,
    )  # fmt: skip


def _teacher(options: argparse.Namespace) -> Student | None:
    """The ColBERT of the loss tct."""
    from ..encoders.loader import resolve_model
    from .students.colbert import ColbertStudent

    if options.teacher is None:
        return None
    teacher = ColbertStudent(resolve_model(options.teacher))
    if teacher.has_new_projection:
        raise ValueError(f"--teacher {options.teacher} is no ColBERT")
    return teacher.to(options.device).requires_grad_(False)


def _counts_idf(options: argparse.Namespace) -> bool:
    return options.method == "inference-free" and not options.idf


def _validation(options: argparse.Namespace, load_dataset: LoadDataset, *, bf16: bool) -> Validate:
    from .validation import dev_documents, ndcg_at_10

    dataset = load_dataset(options.dev, options.dev_split)
    documents = dev_documents(options.dev, dataset.qrels, options.dev_documents)
    numbers = {doc_id: number for number, doc_id in enumerate(documents)}
    judged = [
        {numbers[doc_id]: float(gain) for doc_id, gain in dataset.qrels[query_id].items() if doc_id in numbers}
        for query_id in dataset.queries
    ]
    queries, texts = list(dataset.queries.values()), list(documents.values())
    say(f"validating every {options.dev_every:,} steps: {len(queries):,} queries, {len(texts):,} documents of {options.dev}")
    return lambda student: ndcg_at_10(student, queries, texts, judged, bf16=bf16)


def _tell_training(report: TrainReport, data: TrainingSet) -> None:
    resumed = f", {report.n_resumed:,} of them earlier" if report.n_resumed else ""
    best = f"; best nDCG@10 {report.best_score:.4f} at step {report.best_step:,}" if report.best_score is not None else ""
    say(f"trained {report.n_steps:,} steps{resumed} on {len(data):,} examples in {report.elapsed_s:.1f} s{best}")
