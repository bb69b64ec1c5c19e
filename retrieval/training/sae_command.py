"""``lexmax train sae``: from options to vectors, a run and a model.

This module is read when the command runs, not at every start of the command line.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..corpora.reading import read_corpus
from ..encoders.checkpoints.sae import BASES, BaseFiles
from ..encoders.loader import lasting_name, recognised, resolve_model
from ..encoders.registry import default_settings, load_encoder
from ..terminal import json_or_text, progress_bar, say, settings_of, split_setting, write
from .sae_loop import SaeReport, SaeTrainConfig, train_sae
from .sae_model import SaeModelConfig
from .sae_vectors import drawn

N_TEXTS = 20_000
BASE_SETTINGS = ("dtype", "document_length", "query_length", "query_expansion")
OWN_OPTIONS = {"n_latents", "n_active", "n_steps", "batch_size", "learning_rate", "seed", "n_threads"}
REFUSED = ("data", "passages", "idf", "states", "teacher", "loss", "dev")
"""Options of the methods that learn from queries."""


def run_train_sae(options: argparse.Namespace) -> int:
    """Train, and write the folder of the model on stdout."""
    wrong = [name for name in REFUSED if getattr(options, name)]
    if wrong:
        raise ValueError(f"--{wrong[0]} is not for sae, which learns from a --corpus alone")
    if not options.corpus:
        raise ValueError("train sae needs a --corpus of texts to learn from")
    n_texts = N_TEXTS if options.documents is None else options.documents
    if n_texts < 1:
        raise ValueError(f"--documents is {n_texts}: it must be >= 1")
    of_base = [text for text in options.set if text.partition("=")[0] in BASE_SETTINGS]
    model = SaeModelConfig(**settings_of(SaeModelConfig, [text for text in options.set if text not in of_base], "--set"))
    config = _config(options)
    base, files = _base(options, dict(_setting(text) for text in of_base))
    texts = drawn((document.content for document in read_corpus(options.corpus)), n_texts, seed=options.seed)
    say(f"{len(texts):,} texts; vectors of {files.model} ({base.dim} numbers)")
    with progress_bar("texts", total=len(texts)) as encoding, progress_bar("steps", total=config.n_steps) as steps:
        report = train_sae(base, files, texts, config, model, options.out, encoding=encoding, progress=steps)
    _tell(report, config)
    write(str(report.model))
    return 0


def _config(options: argparse.Namespace) -> SaeTrainConfig:
    given: dict[str, Any] = settings_of(SaeTrainConfig, options.loop, "--loop", without=OWN_OPTIONS)
    named = {"n_latents": "latents", "n_active": "active", "batch_size": "batch_size", "learning_rate": "learning_rate"}
    given |= {name: value for name, option in named.items() if (value := getattr(options, option)) is not None}
    return SaeTrainConfig(n_steps=options.steps, seed=options.seed, n_threads=options.threads, **given)


def _setting(text: str) -> tuple[str, Any]:
    name, value = split_setting(text, "--set")
    return name, json_or_text(value)


def _base(options: argparse.Namespace, settings: dict[str, Any]) -> tuple[Any, BaseFiles]:
    """The encoder whose vectors are decomposed, in the precision of the run, and how the checkpoint names it."""
    kind = recognised(resolve_model(options.model))
    if kind not in BASES:
        raise ValueError(f"--model {options.model} is {kind}: a sparse autoencoder stands on {' or '.join(BASES)}")
    model, dtype = lasting_name(options.model), settings.pop("dtype", None)
    if kind == "colbert":
        settings.setdefault("query_expansion", False)
    dtype = dtype or default_settings(model, options.device).get("dtype", "float32")
    stated = load_encoder(kind, model=model, dtype="float32", **settings)
    base: Any = load_encoder(kind, model=model, device=options.device, dtype=dtype, **settings)
    return base, BaseFiles(kind=kind, model=model, settings=settings, fingerprint=stated.fingerprint)


def _tell(report: SaeReport, config: SaeTrainConfig) -> None:
    resumed = f", {report.n_resumed:,} of them earlier" if report.n_resumed else ""
    say(f"trained {report.n_steps:,} steps{resumed} on {report.n_vectors:,} vectors in {report.elapsed_s:.1f} s; unexplained "
        f"variance {report.unexplained:.3f}, {report.n_dead:,} of {config.n_latents:,} latents dead")  # fmt: skip
