"""The command line of `lexmax bench`: comparisons and their options. Importing it imports no engine."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ...retrieval.terminal import require, say, settings_of, write
from . import use_threads


def add_commands(comparisons: Any) -> None:
    """Add every comparison to the sub-parsers of ``lexmax bench``."""
    _add_sparse(_command(
        comparisons, "sparse", _sparse, "engines for learned-sparse vectors, or BM25",
        "Time lexmax and every other installed engine on the same impacts and queries, in one thread.",
        "lexmax bench sparse --docs 100000 --plot speed.png",
    ))  # fmt: skip
    _add_multivector(_command(
        comparisons, "multivector", _multivector, "engines for late interaction over token vectors",
        "Time lexmax, its oracle and every other installed engine on the same token vectors and queries.",
        "lexmax bench multivector --npz tokens.npz --fast-plaid-python .peers/fast-plaid/bin/python --plot speed.png",
    ))  # fmt: skip
    _add_codecs(_command(
        comparisons, "codecs", _codecs, "codecs of token vectors: recall and error against bytes",
        "Compress the same token vectors in every way and compare full MaxSim over what comes back with the exact one.",
        "lexmax bench codecs --tokens tokens.npz --json",
    ))  # fmt: skip
    _add_dense(_command(
        comparisons, "dense", _dense, "searches of a dense field beside faiss called directly",
        "Time lexmax and faiss on the same generated vectors and queries, in one thread.",
        "lexmax bench dense --docs 100000 --field structure=ivf --option n_probe=32 --json",
    ))  # fmt: skip
    _add_nets(_command(
        comparisons, "nets", _nets, "queries that are networks: exhaustive, along the graph, beside a flat scan",
        "Time searches of a field that networks score, on generated vectors and random networks, in one thread.",
        "lexmax bench nets --sizes 384 64 --neighbours 32 --json",
    ))  # fmt: skip
    _add_fde(_command(
        comparisons, "fde", _fde, "encodings of token vectors as one vector (MUVERA) beside other packages",
        "Time lexmax's encodings of documents and queries and those of every installed package, in one thread.",
        "lexmax bench fde --json",
    ))  # fmt: skip
    _add_ssd(_command(
        comparisons, "ssd", _ssd, "reranking by token vectors from disk beside the same from memory",
        "Time reranking of the same candidates from memory, a memory map and disk, interleaved query by query, pages dropped.",
        "lexmax bench ssd --docs 200000 --memory-cap 750MB --plot ssd.png",
    ))  # fmt: skip
    _add_encode(_command(
        comparisons, "encode", _encode, "encoders alone and in one shared pass, in several precisions",
        "Time encoders on passages and on single queries: each alone, and all in one pass over a shared trunk.",
        "lexmax bench encode --encoder lexmax-splade --encoder lexmax-colbert --precisions int8 float32",
    ))  # fmt: skip
    _add_pipeline(_command(
        comparisons, "pipeline", _pipeline, "a search expression against the sum of its stages",
        "Time a search expression and its single stages in one interleaved run, in one thread.",
        "lexmax bench pipeline --index IDX --queries queries.txt --search '(bm25 + splade) > colbert'",
    ))  # fmt: skip
    _add_commits(_command(
        comparisons, "commits", _commits, "cost of a commit in indexes of different sizes, and memory of merging",
        "Commit generated documents into indexes of different sizes; then merge each index and measure its memory.",
        "lexmax bench commits --sizes 10000 100000 --json",
    ))  # fmt: skip


def _command(comparisons: Any, name: str, run: Any, summary: str, about: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = comparisons.add_parser(
        name, help=summary, description=about, epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def _add_sparse(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--docs", type=int, default=100_000, help="documents to generate (default 100000)")
    source.add_argument("--index", metavar="IDX", help="take the documents of an index")
    source.add_argument("--vectors", metavar="FILE.npz", help="take document vectors in SciPy's CSR layout")
    source.add_argument("--bm25", metavar="CORPUS", help="compare BM25 on the texts of a corpus with bm25s")
    parser.add_argument("--queries", type=int, default=100, help="queries of each kind (default 100)")
    parser.add_argument("--query-vectors", metavar="FILE.jsonl", help="a JSON object a line, vector: {term: weight}; also .gz")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100, 1000], help="depths (default 10 100 1000)")
    parser.add_argument("--reorder", action="store_true", help="order documents by graph bisection first, for all engines")
    parser.add_argument("--threads", type=int, default=1, metavar="N",
                        help="let lexmax also answer with N threads, timed on the wall (default 1: do not)")  # fmt: skip
    _add_common(parser)


def _add_multivector(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--docs", type=int, default=10_000, help="documents to generate (default 10000)")
    source.add_argument("--index", metavar="IDX", help="take the documents of an index of token vectors, decoded")
    source.add_argument("--npz", metavar="FILE.npz",
                        help="take arrays offsets, tokens, queries and, for tachiom, token_ids")  # fmt: skip
    parser.add_argument("--query-file", metavar="FILE.npz", help="with --index: an array queries (n, tokens, dim)")
    parser.add_argument("--queries", type=int, default=100, help="queries, at most (default 100)")
    parser.add_argument("--slow-queries", type=int, default=20, help="queries of exhaustive search and fast-plaid (default 20)")
    parser.add_argument("--dim", type=int, default=128, help="of generated token vectors (default 128)")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100], help="depths (default 10 100)")
    parser.add_argument("--threads", type=int, default=2, help="threads that share all queries in a last pass (default 2)")
    parser.add_argument(
        "--fast-plaid-python",
        metavar="PATH",
        help="interpreter of an environment with fast-plaid: make peers",
    )
    parser.add_argument("--work", metavar="DIR", help="keep indexes here, and take those that are here already")
    _add_common(parser)


def _add_codecs(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--docs", type=int, default=2000, help="documents to generate (default 2000)")
    source.add_argument("--tokens", metavar="FILE.npz", help="take arrays offsets, tokens and queries")
    parser.add_argument("--queries", type=int, default=100, help="queries, at most (default 100)")
    parser.add_argument("--dim", type=int, default=128, help="of generated token vectors (default 128)")
    parser.add_argument("--centroids", type=int, metavar="N", help="number of centroids (default: as an index has them)")
    parser.add_argument("--seed", type=int, default=0, help="of samples and of what is generated (default 0)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")


def _add_dense(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--docs", type=int, default=100_000, help="vectors to generate (default 100000)")
    parser.add_argument("--dim", type=int, default=384, help="numbers of a vector (default 384)")
    parser.add_argument("--field", action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of the field, such as structure=ivf or keep=float32; repeatable")  # fmt: skip
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                        help="an option of the search, such as n_probe=32; repeatable")  # fmt: skip
    parser.add_argument("--queries", type=int, default=100, metavar="N", help="queries (default 100)")
    parser.add_argument("--k", type=int, nargs="+", default=[10, 100], help="depths (default 10 100)")
    parser.add_argument("--passes", type=int, default=3, help="the best of these counts for each query (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of what is generated (default 0)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")


def _add_nets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--docs", type=int, default=200_000, help="vectors to generate (default 200000)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[384, 64], metavar="N",
                        help="numbers of a vector, then of each hidden layer (default 384 64)")  # fmt: skip
    parser.add_argument("--keep", default="float16", choices=("float16", "float32"), help="precision (default float16)")
    parser.add_argument("--neighbours", type=int, default=32, metavar="N", help="of the graph; 0: none (default 32)")
    for name, what in (("n-entry", "documents that a walk begins with"), ("n-candidates", "documents it leaves in a round"),
                       ("max-iterations", "rounds")):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{what} (default: the search's own)")
    parser.add_argument("--queries", type=int, default=30, metavar="N", help="queries (default 30)")
    parser.add_argument("--k", type=int, default=10, help="depth (default 10)")
    parser.add_argument("--passes", type=int, default=2, help="the best of these counts for each query (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of what is generated (default 0)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")


def _add_ssd(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--docs", type=int, default=200_000, help="documents to generate (default 200000)")
    parser.add_argument("--tokens", type=int, nargs=2, default=[60, 180], metavar=("LOW", "HIGH"),
                        help="fewest and most tokens of a document (default 60 180)")  # fmt: skip
    parser.add_argument("--dim", type=int, default=128, help="of token vectors (default 128)")
    parser.add_argument("--nbits", type=int, default=8, help="of a record: 8, 4, 2 or 1 (default 8)")
    parser.add_argument("--queries", type=int, default=40, metavar="N", help="queries (default 40)")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1000, 128], metavar="N", help="depths (default 1000 128)")
    parser.add_argument("--places", nargs="+", metavar="PLACE", help="places beside memory (default: all that work here)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], metavar="N", help="who ask at once (default 1 8)")
    parser.add_argument("--passes", type=int, default=2, help="the best of these counts for each query (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of what is generated (default 0)")
    parser.add_argument("--work", metavar="DIR", help="keep the index here, and take it from here when it is there")
    parser.add_argument("--memory-cap", metavar="SIZE", help="of what reads, page cache included, by a memory group; "
                        "needs root (default: none)")  # fmt: skip
    parser.add_argument("--plot", metavar="FILE.png", help="write a picture")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")


def _add_fde(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--docs", type=int, default=64, help="documents to generate (default 64)")
    parser.add_argument("--queries", type=int, default=64, metavar="N", help="queries (default 64)")
    parser.add_argument("--document-tokens", type=int, default=100, metavar="N", help="of each document (default 100)")
    parser.add_argument("--query-tokens", type=int, default=32, metavar="N", help="of each query (default 32)")
    parser.add_argument("--dim", type=int, default=128, help="of token vectors (default 128)")
    parser.add_argument("--repetitions", type=int, default=20, metavar="N", help="of the paper's encoding (default 20)")
    parser.add_argument("--planes", type=int, default=4, metavar="N", help="of each repetition (default 4)")
    parser.add_argument("--inner-dim", type=int, default=8, metavar="N", help="numbers of a cell (default 8)")
    parser.add_argument("--passes", type=int, default=10, help="the best of these counts (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of what is generated (default 0)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")


def _add_encode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", action="append", metavar="SPEC",
                        help="[NAME=]MODEL[,SETTING=VALUE]..., repeatable (default bm25, splade and colbert)")  # fmt: skip
    parser.add_argument("--precisions", nargs="+", choices=("int8", "bfloat16", "float32"), metavar="P",
                        help="of the models: int8, bfloat16, float32 (default: all)")  # fmt: skip
    parser.add_argument("--dataset", metavar="FOLDER", help="a BEIR folder (default: the repository's SciFact)")
    parser.add_argument("--passages", type=int, default=64, metavar="N", help="passages (default 64)")
    parser.add_argument("--queries", type=int, default=40, metavar="N", help="single queries (default 40)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of every library (default 2)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="the best of these counts (default 3)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")


def _add_pipeline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--search", metavar="EXPR", help="the expression (default: the index's; of a generated index "
                        "(a + b) > 0.5*a + 0.5*b)")  # fmt: skip
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--docs", type=int, default=20_000, help="documents to generate (default 20000)")
    source.add_argument("--index", metavar="IDX", help="take an index; needs --queries")
    parser.add_argument("--queries", metavar="FILE.txt", help="with --index: queries, one per line")
    parser.add_argument("--n-queries", type=int, default=100, metavar="N", help="queries, at most (default 100)")
    parser.add_argument("--k", type=int, nargs="+", default=[10], help="depths (default 10)")
    parser.add_argument("--passes", type=int, default=3, help="the best of these counts for each query (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of what is generated (default 0)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")


def _add_commits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N",
                        help="documents of the indexes (default 10000 100000 1000000)")  # fmt: skip
    parser.add_argument("--added", type=int, default=100, metavar="N", help="documents per commit (default 100)")
    parser.add_argument("--commits", type=int, default=24, metavar="N", help="commits per index (default 24)")
    parser.add_argument("--token-docs", type=int, default=10_000, metavar="N",
                        help="documents of an index of token vectors; 0: none (default 10000)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of what is generated (default 0)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passes", type=int, default=3, help="the best of these counts for each query (default 3)")
    parser.add_argument("--engines", nargs="+", metavar="NAME", help="default: lexmax and all that are installed")
    parser.add_argument("--seed", type=int, default=0, help="of what is generated (default 0)")
    parser.add_argument("--plot", metavar="FILE.png", help="write a picture")
    parser.add_argument("--json", action="store_true", help="JSON instead of Markdown tables")


def _sparse(options: argparse.Namespace) -> int:
    use_threads()  # before numpy and numba are imported
    _need_matplotlib(options)
    from .bm25 import run_bm25_bench
    from .plot import plot_report
    from .sparse import SparseBench, run_sparse_bench

    if options.bm25:
        if options.reorder or options.threads != 1 or options.query_vectors:
            raise ValueError("--bm25 compares texts in one thread: leave out --reorder, --threads and --query-vectors")
        report = run_bm25_bench(options.bm25, n_queries=options.queries, ks=options.k, n_passes=options.passes, say=say)
    else:
        bench = SparseBench(
            n_docs=options.docs, n_queries=options.queries, seed=options.seed, ks=options.k, index=options.index,
            vectors=options.vectors, query_vectors=options.query_vectors, n_passes=options.passes, engines=options.engines,
            reorder=options.reorder, n_threads=options.threads,
        )  # fmt: skip
        report = run_sparse_bench(bench, say)
    if options.plot:
        plot_report(report, options.plot)
    return _write(report, options)


def _multivector(options: argparse.Namespace) -> int:
    use_threads()
    _need_matplotlib(options)
    from .multivector import MultiVectorBench, run_multivector_bench
    from .token_report import plot_tokens

    bench = MultiVectorBench(
        n_docs=options.docs, seed=options.seed, dim=options.dim, n_queries=options.queries,
        n_slow_queries=options.slow_queries, ks=options.k, index=options.index, queries=options.query_file, npz=options.npz,
        n_passes=options.passes, n_threads=options.threads, engines=options.engines,
        fast_plaid_python=options.fast_plaid_python, work=options.work,
    )  # fmt: skip
    report = run_multivector_bench(bench, say)
    if options.plot:
        plot_tokens(report, options.plot)
    return _write(report, options)


def _codecs(options: argparse.Namespace) -> int:
    use_threads()
    from .codecs import CodecBench, run_codec_bench

    bench = CodecBench(
        tokens=options.tokens, n_docs=options.docs, seed=options.seed, dim=options.dim, n_queries=options.queries,
        n_centroids=options.centroids,
    )  # fmt: skip
    return _write(run_codec_bench(bench, say), options)


def _dense(options: argparse.Namespace) -> int:
    use_threads()
    from ...index.dense.config import DenseFieldConfig
    from ...retrieval.searchers.dense import DenseOptions
    from .dense import DenseBench, run_dense_bench

    bench = DenseBench(
        n_docs=options.docs, dim=options.dim, n_queries=options.queries, ks=options.k, n_passes=options.passes,
        seed=options.seed, storage=settings_of(DenseFieldConfig, options.field, "--field", without=("dim",)),
        options=settings_of(DenseOptions, options.option, "--option", without=("algorithm",)),
    )  # fmt: skip
    return _write(run_dense_bench(bench, say), options)


def _nets(options: argparse.Namespace) -> int:
    use_threads()
    from .nets import NetBench, run_net_bench

    bench = NetBench(
        n_docs=options.docs, n_queries=options.queries, seed=options.seed, sizes=tuple(options.sizes), keep=options.keep,
        n_neighbours=options.neighbours, n_entry=options.n_entry, n_candidates=options.n_candidates,
        max_iterations=options.max_iterations, k=options.k, n_passes=options.passes,
    )  # fmt: skip
    return _write(run_net_bench(bench, say), options)


def _ssd(options: argparse.Namespace) -> int:
    use_threads()
    _need_matplotlib(options)
    from ...retrieval.commands.options import bytes_of
    from .ssd import SsdBench, plot_ssd, run_ssd_bench

    bench = SsdBench(
        n_docs=options.docs, widths=tuple(options.tokens), dim=options.dim, nbits=options.nbits, n_queries=options.queries,
        n_candidates=tuple(options.candidates), places=options.places, n_clients=tuple(options.clients),
        n_passes=options.passes, seed=options.seed, work=options.work,
        memory_cap=None if options.memory_cap is None else bytes_of(options.memory_cap, "--memory-cap"),
    )  # fmt: skip
    report = run_ssd_bench(bench, say)
    if options.plot:
        plot_ssd(report, options.plot)
    return _write(report, options)


def _fde(options: argparse.Namespace) -> int:
    use_threads()
    from .fde import FdeBench, run_fde_bench

    bench = FdeBench(
        n_docs=options.docs, n_queries=options.queries, document_tokens=options.document_tokens,
        query_tokens=options.query_tokens, dim=options.dim, n_repetitions=options.repetitions, n_planes=options.planes,
        inner_dim=options.inner_dim, n_passes=options.passes, seed=options.seed,
    )  # fmt: skip
    return _write(run_fde_bench(bench, say), options)


def _encode(options: argparse.Namespace) -> int:
    use_threads(options.threads)
    from .encoding import ENCODERS, PRECISIONS, SCIFACT, EncodeBench, run_encode_bench

    bench = EncodeBench(
        encoders=options.encoder or ENCODERS, precisions=options.precisions or PRECISIONS, folder=options.dataset or SCIFACT,
        n_passages=options.passages, n_queries=options.queries, n_threads=options.threads, n_rounds=options.rounds,
    )  # fmt: skip
    return _write(run_encode_bench(bench, say), options)


def _pipeline(options: argparse.Namespace) -> int:
    use_threads()
    from .pipeline import PipelineBench, run_pipeline_bench

    bench = PipelineBench(
        search=options.search, index=options.index, queries=options.queries, n_docs=options.docs,
        n_queries=options.n_queries, seed=options.seed, ks=options.k, n_passes=options.passes,
    )  # fmt: skip
    return _write(run_pipeline_bench(bench, say), options)


def _commits(options: argparse.Namespace) -> int:
    from .commits import CommitBench, run_commit_bench

    bench = CommitBench(
        sizes=options.sizes, n_added=options.added, n_commits=options.commits, token_docs=options.token_docs, seed=options.seed
    )  # fmt: skip
    return _write(run_commit_bench(bench, say), options)


def _write(report: Any, options: argparse.Namespace) -> int:
    write(json.dumps(report.to_json(), ensure_ascii=False, indent=1) if options.json else report.to_markdown())
    return 0


def _need_matplotlib(options: argparse.Namespace) -> None:
    if options.plot:
        require("matplotlib", "bench", "--plot")
