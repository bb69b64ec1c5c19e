"""Fixed dimensional encodings as a first stage: recall of MaxSim's ten best, time of a query, bytes of a document.

    python tests/bench/fde_recall.py INDEX QUERIES.jsonl [--field colbert] [--queries 60]
    python tests/bench/fde_recall.py --generate 1000000 INDEX [--tokens 30]

INDEX has a field of token vectors and any number of fields that encode it (``lexmax field add INDEX fde=muvera,of=colbert``).
Prints, for each of those, for the codes of quantised ones alone, and for the centroid search of the token field with several
efforts: the share of the ten best documents by exact MaxSim over the tokens at 8 bits among the first 100, 500 and 1,000; the
median CPU time of a query at the last of these depths, in one thread, the engines taking turns; bytes of a document on disk.

With --generate an index of generated token vectors is made first, which tell speed and growth, and nothing about quality.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from lexmax.eval.bench.fields import without_text
from lexmax.eval.bench.token_generator import TokenRecipe, generate_tokens, token_chunks
from lexmax.index.collection import Collection, NewField
from lexmax.index.manifest import EncoderRecord
from lexmax.index.representations import MultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.corpora.queries import read_queries
from lexmax.retrieval.fields import index_encoder
from lexmax.retrieval.searchers.dense import DenseOptions
from lexmax.retrieval.searchers.registry import field_searcher
from lexmax.retrieval.searchers.tokens import CentroidOptions

ENCODER = EncoderRecord(kind="vectors", fingerprint="vectors:generated", settings={})
DEPTHS = (100, 500, 1000)
EFFORTS = [
    {},
    {"n_probe": 8, "n_gathered": 2000, "n_candidates": 1000, "n_exact": 0},
    {"n_probe": 4, "n_gathered": 1000, "n_candidates": 1000, "n_exact": 0},
]
"""Options of the centroid search; of these the first is the default."""


def generate(path, recipe):
    """Write an index of generated documents with a token field."""
    field = NewField(encoder=ENCODER, representation="tokens", options={"dim": recipe.dim})
    with Collection.create(path, {"colbert": field}) as collection:
        n_docs = 0
        for vectors in token_chunks(recipe):
            collection.add(without_text(n_docs, n_docs + len(vectors)), {"colbert": vectors})
            n_docs += len(vectors)
        collection.commit()


def engines(snapshot, field, tokens):
    """Each engine's name, its searcher, its queries and its options."""
    searcher = field_searcher(snapshot.fields[field])
    found = [(f"{field} {settings or 'default'}", searcher, tokens, CentroidOptions(**settings)) for settings in EFFORTS]
    for name, each in snapshot.fields.items():
        if each.representation != "fde" or each.config.of != field:
            continue
        searcher = field_searcher(each)
        found.append((name, searcher, tokens, DenseOptions()))
        if each.dense.config.quantise != "none":
            found.append((f"{name}, codes alone", searcher, tokens, DenseOptions(n_candidates=0)))
    return found


def measured(engine, n_queries, truth, times):
    """Search every query alone; returns the recall at each depth, and appends CPU times."""
    _, searcher, tokens, options = engine
    found = np.zeros(len(DEPTHS))
    for number in range(n_queries):
        query = MultiVectors.of([tokens.row(number)], tokens.dim)
        start = time.thread_time()
        doc_nums, _ = searcher.search(searcher.vectors(query), DEPTHS[-1], options=options).query(0)
        times.append(time.thread_time() - start)
        found += [np.isin(truth[number], doc_nums[:depth]).mean() for depth in DEPTHS]
    return found / n_queries


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("texts", nargs="?", help="file of queries; not with --generate")
    parser.add_argument("--field", default="colbert")
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--generate", type=int, metavar="N", help="documents to generate, where there is no index yet")
    parser.add_argument("--tokens", type=float, default=30.0, help="of a generated document, on average (default 30)")
    options = parser.parse_args()
    recipe = TokenRecipe(n_docs=options.generate or 1, n_queries=options.queries, tokens=options.tokens)
    if options.generate and not Path(options.index).exists():
        generate(options.index, recipe)
    snapshot = Snapshot.open(options.index)
    field = snapshot.field(options.field)
    if options.generate:
        tokens = generate_tokens(TokenRecipe(**{**vars(recipe), "n_docs": min(recipe.n_docs, 2048)})).queries
    else:
        queries = [query.text for query in read_queries(options.texts)][: options.queries]
        tokens = index_encoder(field.record).encode_queries(queries)
    exhaustive = field_searcher(field).search(tokens, 10, options=CentroidOptions(algorithm="exhaustive"))
    truth = [exhaustive.query(number)[0] for number in range(len(tokens))]
    turns = [(engine, [], []) for engine in engines(snapshot, options.field, tokens)]
    for _ in range(3):
        for engine, times, recalls in turns:
            recalls.append(measured(engine, len(tokens), truth, times))
    print(f"{snapshot.n_docs} documents, {len(tokens)} queries")
    for (name, searcher, _, _), times, recalls in turns:
        n_bytes, shares = searcher.field.n_bytes / snapshot.n_docs, " ".join(f"{share:.3f}" for share in recalls[-1])
        print(f"  {name}: of ten among {DEPTHS}: {shares}  p50 {np.median(times) * 1e3:.2f} ms  {n_bytes:.0f} B", flush=True)


if __name__ == "__main__":
    main()
