"""The command ``eval``: one index on one dataset, or with ``--suite`` several systems on several collections.

This module is read at every start of the command line, so whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..retrieval.commands.options import (
    Command,
    add_model_options,
    add_search_options,
    encoder_specs,
    open_retriever,
    tell_encoders,
)
from ..retrieval.terminal import check_picture, compiling, progress_bar, require, say, write


def add_eval_command(command: Command) -> None:
    """Add the command to the command line."""
    parser = command("eval", _eval, "evaluate an index on a dataset with judgments",
                     "lexmax eval scifact/ --index IDX --json")  # fmt: skip
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="a BEIR folder or an ir_datasets id")
    parser.add_argument("--index", metavar="IDX")
    parser.add_argument("--split", default="test", help="which judgments of a BEIR folder (default test)")
    parser.add_argument("--measures", nargs="+", metavar="MEASURE", help="such as nDCG@10 MRR@10 Recall@100 Recall@1000 MAP")
    parser.add_argument("-k", type=int, default=1000, help="documents retrieved for each query (default 1000)")
    parser.add_argument("--run-out", metavar="FILE", help="write the ranking as a TREC run file")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")
    parser.add_argument("--plot", metavar="FILE", help="draw means with 95 %% intervals as PNG, SVG or PDF: of each "
                        "measure, or with --suite of each search on each collection")  # fmt: skip
    _add_suite_options(parser)
    add_search_options(parser, several=True)
    add_model_options(parser)


def _add_suite_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several searches on several collections",
        "instead of DATASET and --index: one index per collection, with all --encoder fields, answers every --search",
    )
    group.add_argument("--suite", nargs="+", metavar="FOLDER", help="BEIR folders")
    group.add_argument("--encoder", action="append", default=[], metavar="SPEC",
                       help="a vector field, [NAME=]MODEL[,SETTING=VALUE]..., as in lexmax build; repeatable")  # fmt: skip
    group.add_argument("--documents", type=int, default=0, metavar="N",
                       help="for a quick look: of each collection the documents judged, and others up to so many in all; "
                       "figures are then higher than those of whole collections (default: all)")  # fmt: skip
    group.add_argument("--work", metavar="DIR", help="where indexes are kept, and taken from the next time")


def _eval(options: argparse.Namespace) -> int:
    require("ranx", "eval", "lexmax eval")
    check_picture(options.plot)
    if options.suite:
        return _eval_suite(options)
    if not options.dataset or not options.index:
        raise ValueError("eval takes a DATASET and --index IDX, or --suite with folders")
    from .datasets import load_dataset

    if options.encoder or len(options.search) > 1:
        raise ValueError("--encoder and several --search go with --suite")
    options.search = options.search[0] if options.search else None
    from .evaluate import evaluate_index
    from .measures import DEFAULT_MEASURES
    from .runs import write_run

    dataset = load_dataset(options.dataset, split=options.split)
    if dataset.n_unjudged:
        say(f"{dataset.n_unjudged:,} queries have no relevant document in {dataset.name} and are left out")
    measures = options.measures or DEFAULT_MEASURES
    with compiling(), open_retriever(options) as retriever:
        with progress_bar("queries", total=len(dataset.queries)) as bar:
            report = evaluate_index(retriever, dataset, k=options.k, measures=measures, progress=bar)
        if report.warning:
            say(f"lexmax: warning: {report.warning}")
        if options.run_out:
            write_run(options.run_out, report.run, tag=retriever.fingerprint)
        if options.plot:
            from .pictures import plot_measures

            plot_measures(report.per_query, options.plot, system=f"{retriever.default_search} on {dataset.name}")
            say(f"drew {options.plot}")
    write(json.dumps(report.to_json(), ensure_ascii=False, indent=1) if options.json else report.to_markdown())
    return 0


def _eval_suite(options: argparse.Namespace) -> int:
    from .suite.comparison import MEASURE, evaluate_suite
    from .suite.corpora import Workplace
    from .suite.systems import load_fields, parse_searches

    alone = ("dataset", "index", "model", "measures", "run_out", "option", "target_recall",
             "token_storage", "memory_budget")  # fmt: skip
    other = [name for name in alone if getattr(options, name)]
    if other or options.exhaustive:
        raise ValueError(f"--suite compares searches by nDCG@10: it does not go with {', '.join(other or ['exhaustive'])}")
    options.resumes = True
    if not options.work:
        raise ValueError("--suite needs --work DIR, where indexes are kept")
    specs = encoder_specs(options.encoder)
    systems = parse_searches(options.search, [spec.name for spec in specs])
    fields = load_fields(options.encoder, device=options.device)
    tell_encoders(specs, options.device)
    work = Workplace(
        folder=Path(options.work), say=say, bar=lambda sources: progress_bar("documents", sources=sources)
    )  # fmt: skip
    with compiling():
        report = evaluate_suite(options.suite, systems, fields, work, split=options.split, n_documents=options.documents)
    if options.plot:
        from .pictures import plot_systems

        plot_systems(report.per_query, options.plot, measure=MEASURE)
        say(f"drew {options.plot}")
    text = json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n" if options.json else report.to_markdown()
    sys.stdout.write(text)
    return 0
