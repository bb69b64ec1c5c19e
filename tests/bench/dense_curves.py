"""Curves of dense fields on real vectors: prefixes of Matryoshka vectors and HNSW's orders, recall against bytes and time.

    python tests/bench/dense_curves.py encode MODEL.safetensors TOKENIZER.json DOCUMENTS.jsonl.gz QUERIES.jsonl.gz OUT.npz
    python tests/bench/dense_curves.py stored QUERIES.jsonl OUT.npz INDEX...
    python tests/bench/dense_curves.py prefixes OUT.npz
    python tests/bench/dense_curves.py orders OUT.npz
    python tests/bench/dense_curves.py graphs OUT.npz

``encode`` makes vectors of static embeddings, such as those of the PyPI package wordllama: the mean of a text's tokens, of
unit length. Recall@10 is against the exhaustive search over the kept vectors. Times are the median CPU time of a query, in one
thread.
"""

import argparse
import gzip
import json
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from lexmax.eval.bench.fields import without_text
from lexmax.index.collection import Collection, NewField
from lexmax.index.dense.config import DenseFieldConfig
from lexmax.index.manifest import EncoderRecord
from lexmax.index.representations.dense import DenseVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.encoders.registry import encoder_of
from lexmax.retrieval.searchers.dense import DenseOptions, DenseSearcher

ENCODER = EncoderRecord(kind="vectors", fingerprint="vectors:curves", settings={})
K = 10
ADD_DOCS = 20_000
PREFIXES = [
    *({"structure": "ivf", "coarse_dim": coarse, "search_dim": scanned} for coarse, scanned in [
        (256, 256), (64, 256), (32, 256), (64, 128), (64, 64), (32, 64), (16, 64)]),
    *({"structure": "flat", "quantise": "opq", "pq_bytes": n_bytes, "search_dim": scanned} for n_bytes, scanned in [
        (32, 256), (32, 128), (32, 64), (16, 256), (16, 128), (16, 64)]),
]  # fmt: skip
GRAPHS = [
    {"structure": "flat"},
    {"structure": "ivf"},
    *({"structure": "hnsw", "n_links": n_links, "ef_construction": ef} for n_links, ef in [(8, 64), (16, 128), (32, 256)]),
]
ORDERS = [{"structure": "hnsw", "n_links": n_links, "ef_construction": ef, "order": order}
          for n_links, ef in [(4, 16), (8, 64)] for order in ("given", "random", "lid_desc")]  # fmt: skip


def encode(model, tokenizer_file, documents, queries, out, n_docs, n_queries):
    """Write vectors of texts: ``documents`` and ``queries``, (n, dim) float32."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    (weights,) = (each for each in load_file(model).values() if each.ndim == 2)
    tokenizer = Tokenizer.from_file(tokenizer_file)

    def vectors(path, n):
        found = []
        with gzip.open(path, "rt") as file:
            for line in islice(file, n):
                record = json.loads(line)
                text = " ".join(record[key] for key in ("title", "text", "query") if record.get(key))
                ids = tokenizer.encode(text, add_special_tokens=False).ids or [0]
                found.append(weights[ids].astype(np.float32).mean(axis=0))
        matrix = np.stack(found)
        return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)

    np.savez(out, documents=vectors(documents, n_docs), queries=vectors(queries, n_queries))


def stored(queries, out, indexes, n_queries):
    """Write the vectors of documents of dense fields, one index after the other, and of some queries."""
    snapshots = [Snapshot.open(path) for path in indexes]
    fields = [snapshot.field("dense") for snapshot in snapshots]
    documents = np.concatenate([part.vectors(np.arange(part.n_docs)) for each in fields for part in [each.segments[0].part]])
    with Path(queries).open() as file:
        texts = [json.loads(line)["text"] for line in islice(file, n_queries)]
    np.savez(out, documents=documents, queries=encoder_of(fields[0].record.encoder).encode_queries(texts).vectors)


def build(path, documents, config):
    """Build a field of one segment; returns its searcher and the seconds that it took."""
    start = time.perf_counter()
    new = NewField(encoder=ENCODER, representation="dense", options=config.options())
    with Collection.create(path, {"dense": new}) as collection:
        for first in range(0, len(documents), ADD_DOCS):
            last = min(first + ADD_DOCS, len(documents))
            collection.add(without_text(first, last), {"dense": DenseVectors(documents[first:last])})
        collection.commit()
    searcher = DenseSearcher(Snapshot.open(path).field("dense"))
    searcher.warm()
    return searcher, time.perf_counter() - start


def measured(searcher, queries, **options):
    """Recall@10 and the median time of a query in milliseconds."""
    chosen, every = DenseOptions(**options), DenseOptions(algorithm="exhaustive")
    recalls, times = [], []
    for query in queries:
        asked = DenseVectors(query[None])
        start = time.thread_time()
        found = searcher.search(asked, K, options=chosen).doc_nums
        times.append(time.thread_time() - start)
        recalls.append(len(np.intersect1d(found, searcher.search(asked, K, options=every).doc_nums)) / K)
    return float(np.mean(recalls)), float(np.median(times)) * 1000


def curves(path, settings, efforts):
    """Print a line for each field and effort."""
    stored = np.load(path, allow_pickle=False)
    documents, queries = stored["documents"], stored["queries"]
    print(f"{len(documents):,} documents of {documents.shape[1]} numbers, {len(queries)} queries")
    for each in settings:
        with tempfile.TemporaryDirectory() as folder:
            config = DenseFieldConfig(dim=documents.shape[1], **each)
            searcher, seconds = build(Path(folder) / "idx", documents, config)
            scanned = config.list_dim, config.scan_dim, config.scanned_bytes
            for options in efforts(each):
                recall, ms = measured(searcher, queries, **options)
                print(
                    f"{each} {options}: coarse {scanned[0]}, scanned {scanned[1]} dimensions of {scanned[2]} bytes, "
                    f"recall@10 {recall:.4f}, {ms:.3f} ms, built in {seconds:.0f} s, "
                    f"{searcher.field.n_bytes / len(documents):.0f} bytes per document", flush=True,
                )  # fmt: skip


def main():
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("encode", "stored", "prefixes", "orders", "graphs"))
    parser.add_argument("files", nargs="+", help="as above")
    parser.add_argument("--docs", type=int, default=100_000, help="documents that encode reads (default 100000)")
    parser.add_argument("--queries", type=int, default=200, help="queries that encode reads (default 200)")
    options = parser.parse_args()
    if options.command == "encode":
        encode(*options.files, options.docs, options.queries)
    elif options.command == "stored":
        stored(options.files[0], options.files[1], options.files[2:], options.queries)
    elif options.command == "graphs":
        curves(options.files[0], GRAPHS, lambda each: {
            "flat": [{}], "ivf": [{"n_probe": n} for n in (4, 16, 64)],
            "hnsw": [{"ef_search": ef} for ef in (16, 64, 128, 256)],
        }[each["structure"]])  # fmt: skip
    elif options.command == "prefixes":
        curves(options.files[0], PREFIXES, lambda each: [
            {"n_candidates": n, **({"n_probe": probe} if probe else {})}
            for n, probe in ([(100, 4), (100, 16), (100, 64)] if each["structure"] == "ivf" else [(50, 0), (200, 0)])
        ])  # fmt: skip
    else:
        curves(options.files[0], ORDERS, lambda each: [{"ef_search": ef} for ef in (16, 64)])


if __name__ == "__main__":
    main()
