"""Time MaxSim over residual codes against decompressing first: NumPy with BLAS, plain Numba loops, torch as PLAID does it.

    python tests/bench/maxsim_kernels.py [N_DOCS]

Every round times each way once on the same random documents of a generated index, in one thread; medians of the rounds.
Prints JSON rows: nanoseconds per token of the calling thread, and the ratio to lexmax at 2 bits (or to its centroid kernel).
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

import json
import sys
import time

import numba
import numpy as np
import torch

from lexmax.eval.bench.token_generator import TokenRecipe, generate_tokens
from lexmax.index.kernels import read_only
from lexmax.index.kernels.checksums import CHUNK_BYTES, SOUND, Checked
from lexmax.index.kernels.dot_products import LANES
from lexmax.index.multivector.clustering import train
from lexmax.index.multivector.residual import Encoded
from lexmax.retrieval.kernels.centroids import code_maxima_plain, score_codes
from lexmax.retrieval.kernels.maxsim import maxima_plain, score_documents
from lexmax.retrieval.searchers.lanes import lanes_of

ROUNDS = 15
N_SCORED = 200


def main(n_docs: int) -> None:
    torch.set_num_threads(1)
    found = generate_tokens(TokenRecipe(n_docs=n_docs, n_queries=1))
    tokens, offsets, query = found.tokens.astype(np.float32), found.offsets, found.queries.row(0)
    codec = train(tokens[:: max(1, len(tokens) // 100_000)], 2048)
    rotated = codec.rotate(tokens)
    codes = codec.assign(rotated)
    two, eight = (codec.encode(rotated, codes, nbits)[0] for nbits in (2, 8))
    narrow = codes.astype(np.uint16)
    lane = lanes_of(query, codec)[0]
    dots = lane.dots
    scales = lane.weights * np.float32(codec.centroid_scale)
    rotated_query = codec.rotate(query)
    centroids = torch.from_numpy((codec.centroids.astype(np.float32) - 128) * codec.centroid_scale + codec.mean)
    table = torch.tensor([[((byte >> (2 * plane)) & 3) - 1.5 for plane in range(4)] for byte in range(256)])
    plain_maxima, plain_codes = numba.njit(maxima_plain), numba.njit(code_maxima_plain)

    def picked(documents):
        return np.concatenate([np.arange(offsets[d], offsets[d + 1]) for d in documents]), np.diff(offsets)[documents]

    def integers(encoded, nbits):
        content = read_only(np.concatenate([encoded.levels.reshape(-1), encoded.scalars.reshape(-1)]))
        checked = Checked(content, np.empty(0, np.uint32), np.full(len(content) // CHUNK_BYTES + 2, SOUND))
        levels = content[: encoded.levels.size].reshape(encoded.levels.shape)
        scalars = content[encoded.levels.size :].reshape(encoded.scalars.shape)

        def score(documents):
            scores = np.zeros(len(documents), np.float32)
            score_documents(checked, documents, offsets, nbits, levels, narrow, scalars, dots, lane.packed,
                            lane.constants(codec, nbits), lane.weights, scores)  # fmt: skip
            return scores

        return score

    def plain(documents):
        best, constants = np.empty(LANES, np.float32), lane.constants(codec, 2)
        scores = []
        for d in documents:
            plain_maxima(2, two.levels, narrow, two.scalars, offsets[d], offsets[d + 1] - offsets[d], dots, lane.packed,
                         constants, best)  # fmt: skip
            scores.append(best @ lane.weights)
        return np.array(scores, np.float32)

    def decompressed(documents):
        at, widths = picked(documents)
        decoded = codec.decode(narrow[at], Encoded(two.levels[at], two.scalars[at]), rotated=True)
        return np.maximum.reduceat(decoded @ rotated_query.T, np.cumsum(widths) - widths, axis=0).sum(axis=1)

    def in_torch(documents):
        at, widths = picked(documents)
        levels = table[torch.from_numpy(two.levels[at]).long()].transpose(1, 2).reshape(len(at), -1)
        inverse, scale = torch.from_numpy(two.scalars[at].astype(np.float32) * codec.ranges[2][:, 1] + codec.ranges[2][:, 0]).T
        decoded = inverse[:, None] * centroids[torch.from_numpy(narrow[at].astype(np.int64))] + scale[:, None] * levels
        decoded = torch.nn.functional.normalize(decoded, dim=-1)
        padded = torch.nn.utils.rnn.pad_sequence(decoded.split(widths.tolist()), batch_first=True)
        similarities = padded @ torch.from_numpy(rotated_query).T
        mask = torch.arange(padded.shape[1])[None] >= torch.from_numpy(widths)[:, None]
        return similarities.masked_fill(mask[..., None], -9999).amax(1).sum(1).numpy()

    def by_centroids(documents):
        scores = np.zeros(len(documents), np.float32)
        score_codes(documents, offsets, narrow, dots, scales, 0.0, scores)
        return scores

    def by_centroids_plain(documents):
        best = np.empty(LANES, np.int32)
        scores = []
        for d in documents:
            plain_codes(dots, narrow, offsets[d], offsets[d + 1], best)
            scores.append(best @ scales)
        return np.array(scores, np.float32)

    groups = {
        "2-bit codes": {"lexmax": integers(two, 2), "numba-loops": plain, "decode+blas": decompressed, "torch": in_torch},
        "8-bit codes": {"lexmax": integers(eight, 8)},
        "centroids": {"lexmax": by_centroids, "numba-loops": by_centroids_plain},
    }
    rng = np.random.default_rng(1)
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS + 1):
        documents = np.sort(rng.choice(n_docs, N_SCORED, replace=False)).astype(np.int32)
        n_tokens = int(np.diff(offsets)[documents].sum())
        for kind, ways in groups.items():
            answers = {}
            for name, score in ways.items():
                start = time.thread_time_ns()
                answers[name] = score(documents)
                if number:  # the first round compiles
                    times.setdefault((kind, name), []).append((time.thread_time_ns() - start) / n_tokens)
            for name, answer in answers.items():
                np.testing.assert_allclose(answer, answers["lexmax"], atol=0.05, err_msg=f"{kind}: {name}")
    medians = {key: float(np.median(values)) for key, values in times.items()}
    rows = [
        {"codes": kind, "engine": name, "ns_per_token": round(median, 2), "ratio": round(median / medians[kind, "lexmax"], 1)}
        for (kind, name), median in medians.items()
    ]
    print(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
