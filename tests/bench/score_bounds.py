"""Whether a reranking could stop early: how many candidates bounds of MaxSim rule out that could be kept in memory.

    python tests/bench/score_bounds.py INDEX QUERIES.jsonl [--tokens colbert] [--first splade] [--candidates 200] [--queries 30]

A token lies within an angle of its centroid, and all tokens of a document within an angle of their mean, so no query token is
nearer than the angle to that, less the angle between. Prints the share of candidates whose bound is below the tenth best score,
and how far the bound and that score are above a candidate's score in the mean.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from lexmax import Retriever

K = 10


def angles(cosines):
    return np.arccos(np.clip(cosines, -1, 1))


def bounded(to, reach):
    """Sum over query tokens of the largest cosine that tokens within ``reach`` of what is at angles ``to`` can have."""
    return float(np.cos(np.maximum(to - reach, 0)).max(axis=1).sum())


def bounds(codec, query, codes, tokens):
    """Score of a document, and its bounds by name."""
    centroids = codec.mean + codec.centroid_scale * (codec.centroids[codes].astype(np.float32) - 128)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    reach, to = angles((centroids * tokens).sum(axis=1)), angles(query @ centroids.T)
    mean = tokens.mean(axis=0) / np.linalg.norm(tokens.mean(axis=0))
    return {
        "score": float((query @ tokens.T).max(axis=1).sum()),
        "an angle per token": bounded(to, reach),
        "the largest of a document's angles": bounded(to, reach.max()),
        "a ball around the mean token": bounded(angles(query @ mean)[:, None], angles(tokens @ mean).max()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("queries", type=Path)
    parser.add_argument("--tokens", default="colbert")
    parser.add_argument("--first", default="splade")
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--n", "--queries", type=int, default=30, dest="n")
    given = parser.parse_args()
    texts = [json.loads(line)["text"] for line in given.queries.read_text().splitlines()[: given.n]]
    with Retriever.open(given.index, search=f"{given.first} > {given.tokens}") as retriever:
        encoded = retriever.encode(texts)
        searchers = retriever._pipeline(retriever._current(), None).searchers
    first, field = searchers[given.first], searchers[given.tokens].field
    hits = first.search(first.vectors(encoded[given.first]), given.candidates)
    queries, rows = searchers[given.tokens].vectors(encoded[given.tokens]), {}
    for i in range(len(hits)):
        found = []
        for number in hits.query(i)[0].tolist():
            segment = next(each for each in field.segments if each.base <= number < each.base + each.n_docs)
            codes, residuals = segment.part.store.unpack(np.array([number - segment.base]))
            tokens = field.codec.decode(codes, residuals, rotated=True)
            found.append(bounds(field.codec, field.codec.rotate(queries.row(i)), codes, tokens))
        scores = np.array([each.pop("score") for each in found])
        lowest = np.sort(scores)[-K]
        for name in found[0]:
            values = np.array([each[name] for each in found])
            assert (values >= scores - 1e-3).all(), name
            rows.setdefault(name, []).append(((values < lowest).mean(), (values - scores).mean(), (lowest - scores).mean()))
    print("| bound | ruled out | bound above score | tenth best above score |\n|---|---|---|---|")
    for name, numbers in rows.items():
        print(f"| {name} | {' | '.join(f'{each:.3f}' for each in np.mean(numbers, axis=0))} |")


if __name__ == "__main__":
    main()
