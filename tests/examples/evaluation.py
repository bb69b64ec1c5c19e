"""Evaluation in Python: run the queries of a BEIR folder, and compute the measures of the served ranking."""

import sys
import tempfile
from pathlib import Path

from lexmax import Retriever, build_index
from lexmax.eval.datasets import load_dataset
from lexmax.eval.evaluate import evaluate_index

collection = sys.argv[1] if len(sys.argv) > 1 else "eval/collections/scifact"
with tempfile.TemporaryDirectory() as folder:
    index = Path(folder) / "index"
    build_index(collection, index, encoders=["bm25"])
    with Retriever.open(index) as retriever:
        report = evaluate_index(retriever, load_dataset(collection), measures=["nDCG@10", "Recall@100"])
        print(report.to_markdown())
