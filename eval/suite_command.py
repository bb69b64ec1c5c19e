"""``lexmax eval --suite``: options, and from options to the table.

This module is read at every start of the command line, so whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import argparse
import json
import sys


def add_suite_options(evaluate: argparse.ArgumentParser) -> None:
    """Add what a comparison takes beside the options of a single evaluation."""
    group = evaluate.add_argument_group("several systems on several collections", "instead of DATASET and --index")
    group.add_argument("--suite", nargs="+", metavar="FOLDER", help="BEIR folders")
    group.add_argument("--system", action="append", default=[], metavar="NAME=SPEC",
                       help="bm25, a model's folder or id, rerank:FIRST>SECOND or fusion:A+B of systems before it; "
                       "repeatable, and all are tested against the first")  # fmt: skip
    group.add_argument("--work", metavar="DIR", help="where indexes are kept, and taken from the next time")


def run_suite(options: argparse.Namespace) -> int:
    """Compare, and print a table or JSON."""
    from .suite import evaluate_suite
    from .systems import parse_systems

    other = [name for name in ("dataset", "index", "model", "measures", "run_out") if getattr(options, name)]
    if other:
        raise ValueError(f"--suite compares --systems by nDCG@10: it does not go with {', '.join(other)}")
    if not options.work:
        raise ValueError("--suite needs --work DIR, where indexes are kept")
    report = evaluate_suite(
        options.suite, parse_systems(options.system), options.work, split=options.split, device=options.device, say=_say
    )
    text = json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n" if options.json else report.to_markdown()
    sys.stdout.write(text)
    return 0


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
