"""The commands that make models: ``train``, and ``mine``, ``score`` and ``augment``, which prepare what it learns from.

This module is read at every start of the command line, so whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..commands.options import Command, add_device, add_model_options, models_of
from ..terminal import progress_bar, require_models, say
from .train_command import DATA_HELP, LoadDataset, add_train_options, run_train

if TYPE_CHECKING:
    from .teachers import Teacher


def add_training_commands(command: Command, load_dataset: LoadDataset) -> None:
    """Add the four commands to the command line."""
    train = command("train", partial(run_train, load_dataset=load_dataset), "train an encoder",
                    "lexmax train splade --model distilbert-base-uncased --data lists.jsonl --passages 4 \\\n"
                    "      --steps 20000 --out RUN --loss kl=1 --loss in_batch=0.1 --dev nfcorpus/")  # fmt: skip
    train.set_defaults(resumes=True)
    add_train_options(train)
    mine = command("mine", _mine, "find hard negatives for training, by searching an index",
                   "lexmax mine pairs.jsonl --index IDX --out lists.jsonl --negatives 7 --skip 2")  # fmt: skip
    _add_files(mine)
    _add_index_options(mine)
    mine.add_argument("--negatives", type=int, default=7, metavar="N", help="of each query (default 7)")
    mine.add_argument("--depth", type=int, default=100, metavar="N", help="last rank they are drawn from (default 100)")
    mine.add_argument("--skip", type=int, default=0, metavar="N",
                      help="first ranks passed over, where unjudged relevant documents are (default 0)")  # fmt: skip
    mine.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    score = command("score", _score, "score training lists by teachers, for distillation",
                    "lexmax score lists.jsonl --out scored.jsonl --cross-encoder minilm=models/MiniLM-L-6")  # fmt: skip
    score.set_defaults(resumes=True)
    _add_score_options(score)
    augment = command("augment", _augment, "keep generated queries that find their passage again",
                      "lexmax augment generated.jsonl --index IDX --out pairs.jsonl -k 3")  # fmt: skip
    _add_files(augment)
    _add_index_options(augment)
    augment.add_argument("-k", type=int, default=1, help="the passage must be among so many first results (default 1)")


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help=DATA_HELP.replace("files", "file"))
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write, gzipped when it ends in .gz")


def _add_index_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--index", required=True, metavar="IDX", help="index of a corpus that holds the passages")
    parser.add_argument("--search", metavar="EXPR", help="search expression (default: the one that the index stores)")
    add_model_options(parser)


def _add_score_options(score: argparse.ArgumentParser) -> None:
    _add_files(score)
    score.add_argument("--cross-encoder", action="append", default=[], metavar="[NAME=]DIR", help="a teacher; repeatable")
    score.add_argument("--bi-encoder", action="append", default=[], metavar="[NAME=]DIR",
                       help="a dense, sparse or ColBERT teacher, which encodes as its files state; repeatable. Scores that "
                       "DATA has are kept, so those that need other prompts can come in another run")  # fmt: skip
    score.add_argument("--prompt", metavar="TEXT", help="what dense ones want before queries (default: what their files state)")
    score.add_argument("--passage-prompt", metavar="TEXT", help="what they want before passages")
    score.add_argument("--pooling", choices=["mean", "cls"], help="of plain transformers, whose files state none")
    score.add_argument("--max-length", type=int, metavar="N",
                       help="tokens that are read (default: 512 of cross-encoders, else what the files state)")  # fmt: skip
    score.add_argument("--bf16", action="store_true", help="cross-encoders in bfloat16")
    add_device(score)
    score.add_argument("--cache", metavar="DIR", help="where scores are kept as they come (default: FILE.cache)")


def _mine(options: argparse.Namespace) -> int:
    from ..retriever import Retriever
    from .mining import mine_negatives

    with (
        Retriever.open(options.index, search=options.search, models=models_of(options), device=options.device) as retriever,
        progress_bar("queries", sources=[options.data]) as bar,
    ):
        report = mine_negatives(
            options.data, retriever, options.out, n_negatives=options.negatives, depth=options.depth, skip=options.skip,
            seed=options.seed, progress=bar,
        )  # fmt: skip
    say(f"wrote {report.n_written:,} lists to {options.out}; {report.n_short:,} queries have too few negatives")
    return 0 if report.n_written else 1


def _score(options: argparse.Namespace) -> int:
    require_models("lexmax score")
    from ..progress import count_records
    from .teachers import score_lists

    teachers = _teachers(options)
    n_lists = count_records([options.data])
    with progress_bar("lists", total=n_lists and n_lists * len(teachers)) as bar:
        n_written = score_lists(
            options.data, options.out, teachers, cache=options.cache or f"{options.out}.cache", progress=bar
        )
    say(f"wrote {n_written:,} lists with scores of {', '.join(teachers)} to {options.out}")
    return 0 if n_written else 1


def _teachers(options: argparse.Namespace) -> dict[str, Teacher]:
    from ..encoders.loader import resolve_model
    from .teachers import CrossEncoder, load_bi_encoder

    places = [*map(_named, options.cross_encoder), *map(_named, options.bi_encoder)]
    if not places or len(dict(places)) < len(places):
        raise ValueError("score takes --cross-encoder or --bi-encoder, each under a NAME of its own: NAME=DIR")
    teachers: dict[str, Teacher] = {}
    for number, (name, place) in enumerate(places):
        if number < len(options.cross_encoder):
            teachers[name] = CrossEncoder(
                resolve_model(place), max_length=options.max_length or 512, bf16=options.bf16, device=options.device
            )
        else:
            teachers[name] = load_bi_encoder(
                place, pooling=options.pooling, prompt=options.prompt, passage_prompt=options.passage_prompt,
                max_length=options.max_length, device=options.device,
            )  # fmt: skip
    return teachers


def _named(text: str) -> tuple[str, str]:
    """Split ``[NAME=]DIR``; the name is by default the folder's own."""
    name, equals, place = text.partition("=")
    return (name, place) if equals else (Path(text).name, text)


def _augment(options: argparse.Namespace) -> int:
    from ..retriever import Retriever
    from .augment import round_trip

    with (
        Retriever.open(options.index, search=options.search, models=models_of(options), device=options.device) as retriever,
        progress_bar("pairs", sources=[options.data]) as bar,
    ):
        report = round_trip(options.data, retriever, options.out, k=options.k, progress=bar)
    say(f"kept {report.n_kept:,} of {report.n_read:,} pairs in {options.out}")
    return 0 if report.n_kept else 1
