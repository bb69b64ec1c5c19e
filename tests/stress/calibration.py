"""Recall that `target_recall` keeps on queries that calibrated nothing, before and after an index has grown fourfold.

    python tests/stress/calibration.py FOLDER... [--documents 1000] [--target 0.95] [--vectors DIR]

FOLDERs are BEIR folders. A quarter of the documents is indexed with each kind of storage and calibrated, with half of the
queries and with passages of documents; the other half is asked. Then the rest is added: the old record must be refused, and the
field is calibrated again. Truth is MaxSim over the float vectors of the encoder, over all documents. Vectors are kept in DIR.
"""

import argparse
import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import tempfile
from pathlib import Path

import numpy as np
import torch

from lexmax import Collection, EncoderRecord, MultiVectors, NewField, calibrate, load_encoder, read_corpus
from lexmax.eval.datasets import load_dataset
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.searchers.calibration_record import Calibration
from lexmax.retrieval.searchers.centroid import CentroidOptions, CentroidSearcher

STORAGE = ({"nbits": 2}, {"nbits": 4, "exact": False}, {"nbits": 2, "exact": False})
N_QUERIES, K = 200, 10


class Remembering:
    """An encoder that encodes every text once, and keeps its vectors in files."""

    representation = "tokens"

    def __init__(self, encoder, folder):
        self._encoder, self._folder = encoder, folder
        self.kind, self.fingerprint, self.settings, self.dim = encoder.kind, encoder.fingerprint, encoder.settings, encoder.dim
        self._known = {}

    def encode_documents(self, texts):
        return self._encode("documents", texts, self._encoder.encode_documents)

    def encode_queries(self, texts):
        return self._encode("queries", texts, self._encoder.encode_queries)

    def keep(self, name, side, texts):
        """Take the vectors of texts from the file of this name, or encode them and write it."""
        path = self._folder / f"{name}-{side}.npz"
        if path.exists():
            stored = np.load(path)
            vectors = MultiVectors(stored["offsets"], stored["tokens"])
            assert len(vectors) >= len(texts), f"{path} is of fewer texts: remove it"
            self._known |= {(side, text): vectors.row(i) for i, text in enumerate(texts)}
        vectors = getattr(self, f"encode_{side}")(texts)
        if not path.exists():
            np.savez(path, offsets=vectors.offsets, tokens=vectors.tokens)
        return vectors

    def _encode(self, side, texts, encode):
        unknown = [text for text in dict.fromkeys(texts) if (side, text) not in self._known]
        for first in range(0, len(unknown), 64):
            batch = unknown[first : first + 64]
            made = encode(batch)
            self._known |= {(side, text): made.row(i) for i, text in enumerate(batch)}
        return MultiVectors.of([self._known[side, text] for text in texts], self.dim)


def best_by_floats(documents, queries):
    """doc_nums of the K highest MaxSims of each query, over floats."""
    best = []
    for i in range(len(queries)):
        scores = np.maximum.reduceat(queries.row(i) @ documents.tokens.T, documents.offsets[:-1], axis=1).sum(axis=0)
        best.append(np.argsort(-scores, kind="stable")[:K])
    return best


def measured(path, queries, truth, target):
    """Recall@K with ``target_recall``, or why it is refused."""
    options = CentroidOptions(target_recall=target)
    try:
        hits = CentroidSearcher(Snapshot.open(path).field("tokens")).search(queries, K, options=options)
    except ValueError as refusal:
        return None, str(refusal).partition(": ")[2]
    found = [len(np.intersect1d(hits.query(i)[0], each)) / K for i, each in enumerate(truth)]
    return float(np.mean(found)), ""


def by_old_record(path, old, queries, truth, target):
    """Recall@K with the settings that an older record would have chosen."""
    chosen = old.choose(target)
    if chosen is None:
        return float("nan")
    hits = CentroidSearcher(Snapshot.open(path).field("tokens")).search(queries, K, options=CentroidOptions(**chosen.options))
    return float(np.mean([len(np.intersect1d(hits.query(i)[0], each)) / K for i, each in enumerate(truth)]))


def run(folder, storage, kind, encoder, documents, vectors, queries, target):
    """One collection, kind of storage and kind of queries; prints two lines."""
    half = len(queries) // 2
    given, asked = queries.select(np.arange(half)), queries.select(np.arange(half, len(queries)))
    record = EncoderRecord(kind=encoder.kind, fingerprint=encoder.fingerprint, settings=dict(encoder.settings))
    new = NewField(encoder=record, representation="tokens", options={"dim": encoder.dim, **storage})
    with tempfile.TemporaryDirectory() as temporary:
        path, quarter = Path(temporary) / "i", len(documents) // 4
        label = f"{folder.name:10} {storage!s:32} {kind:8}"
        for stage, first, last in (("quarter", 0, quarter), ("fourfold", quarter, len(documents))):
            with Collection.create(path, {"tokens": new}) if first == 0 else Collection.open(path) as collection:
                collection.add(documents[first:last], {"tokens": vectors.select(np.arange(first, last))})
                collection.commit()
            truth = best_by_floats(vectors.select(np.arange(last)), asked)
            stale = ""
            if first:
                old = Calibration.of(Snapshot.open(path).field("tokens"))
                recall, refusal = measured(path, asked, truth, target)
                assert recall is None, f"a stale record was used: {recall}"
                stale = f"; old record refused, its settings would reach {by_old_record(path, old, asked, truth, target):.3f}"
            found = calibrate(path, queries=given if kind == "queries" else None, encoder=encoder)
            recall, refusal = measured(path, asked, truth, target)
            chosen = found.choose(target)
            result = f"refused: {refusal}" if recall is None else f"recall {recall:.3f} with {chosen.options} ({chosen.recall})"
            print(f"{label} {stage:8} {last:5} documents: best {found.best.recall:.3f}, {result}{stale}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--vectors", type=Path, default=Path(tempfile.gettempdir()) / "lexmax-calibration")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.vectors.mkdir(parents=True, exist_ok=True)
    for folder in options.folders:
        encoder = Remembering(load_encoder("colbert"), options.vectors)
        documents = list(read_corpus([str(folder)]))[: options.documents]
        texts = list(load_dataset(folder).queries.values())[:N_QUERIES]
        queries = encoder.keep(folder.name, "queries", texts)
        vectors = encoder.keep(folder.name, "documents", [document.content for document in documents])
        for storage in STORAGE:
            for kind in ("queries", "passages"):
                run(folder, storage, kind, encoder, documents, vectors, queries, options.target)


if __name__ == "__main__":
    main()
