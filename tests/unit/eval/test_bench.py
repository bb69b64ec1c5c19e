import gzip
import json

import numpy as np
import pytest

from lexmax import SparseVectors
from lexmax.__main__ import main
from lexmax.eval.bench import engines, sparse
from lexmax.eval.bench.bm25 import run_bm25_bench
from lexmax.eval.bench.engines import LEXMAX, Engine, build_lexmax, open_lexmax
from lexmax.eval.bench.generator import Recipe, generate_documents, generate_queries
from lexmax.eval.bench.judge import Judge, best_scores, recall
from lexmax.eval.bench.peers import ENGINES
from lexmax.eval.bench.report import Report, make_row, mark_best, shortlist
from lexmax.eval.bench.sparse import SparseBench, run_sparse_bench
from lexmax.eval.bench.timing import Stream, interleave
from lexmax.eval.bench.workload import (
    Query,
    Rows,
    integer_queries,
    number_terms,
    read_index_rows,
    read_npz,
    read_query_vectors,
    sample_queries,
)
from lexmax.index.collection import Collection, NewField
from lexmax.index.documents import Document
from lexmax.index.errors import DatasetError, RepresentationError
from lexmax.index.sparse.vocabulary import Vocabulary

OURS = {"lexmax", "lexmax-blockmax", "lexmax-scan", "lexmax-exhaustive"}
SMALL = Recipe(n_docs=600, n_queries=20, n_terms=4000, n_topics=40)


@pytest.fixture(scope="module")
def collection() -> Rows:
    return Rows(*generate_documents(SMALL))


def vectors(*rows: dict[int, float]) -> SparseVectors:
    return SparseVectors.from_rows([(list(row), list(row.values())) for row in rows])


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def query(weights: dict[int, int]) -> Query:
    return Query(np.array(list(weights), np.int32), np.array(list(weights.values()), np.int64))


# The generator


def test_the_same_seed_gives_the_same_collection_and_another_seed_another(collection):
    again = Rows(*generate_documents(SMALL))
    for name in ("indptr", "terms", "impacts"):
        np.testing.assert_array_equal(getattr(again, name), getattr(collection, name))
    other = Rows(*generate_documents(Recipe(n_docs=600, n_terms=4000, n_topics=40, seed=1)))
    assert not np.array_equal(other.indptr, collection.indptr)
    for kind, asked in generate_queries(SMALL).items():
        np.testing.assert_array_equal(asked.terms, generate_queries(SMALL)[kind].terms)


def test_generated_documents_look_like_learned_sparse_vectors():
    rows = Rows(*generate_documents(Recipe(n_docs=2000)))
    SparseVectors(rows.indptr, rows.terms, rows.impacts.astype(np.float32))  # raises unless terms ascend and weights are > 0
    assert 95 < rows.n_postings / len(rows) < 115
    assert rows.terms.max() < 30_522
    assert rows.impacts.max() == 255
    assert np.mean(rows.impacts == 255) < 0.005
    assert 25 < np.median(rows.impacts) < 60
    shares = np.sort(rows.document_frequencies())[::-1] / len(rows)
    assert 0.3 < shares[0] < 0.8  # a few terms are nearly everywhere,
    assert shares[1000] < 0.03  # most are rare


def test_generated_terms_come_together_more_often_than_by_chance(collection):
    n_docs, present = len(collection), np.zeros((len(collection), SMALL.n_terms), np.bool_)
    present[np.repeat(np.arange(n_docs), np.diff(collection.indptr)), collection.terms] = True
    share = present.mean(axis=0)
    middling = np.flatnonzero((share > 0.03) & (share < 0.1))[:150]
    together = present[:, middling].T.astype(float) @ present[:, middling] / n_docs
    lift = together / np.outer(share[middling], share[middling])
    np.fill_diagonal(lift, 0)
    assert np.median(lift.max(axis=1)) > 4


def test_generated_queries_have_the_promised_lengths():
    asked = generate_queries(Recipe(n_docs=1, n_queries=400))
    assert 28 < np.diff(asked["expanded"].indptr).mean() < 35
    assert 4 < np.diff(asked["short"].indptr).mean() < 6


def test_a_recipe_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least a document"):
        Recipe(n_docs=0)


# The workload


def test_query_weights_become_1_to_32_and_unknown_terms_are_dropped():
    found = integer_queries(vectors({0: 4.0, 1: 1.0, 2: 0.001, 9: 50.0}, {9: 1.0}, {1: 7.0}), ints(3, 1, 2), n=10)
    assert [q.terms.tolist() for q in found] == [[0, 1, 2], [1]]
    assert [q.weights.tolist() for q in found] == [[32, 8, 1], [32]]
    assert len(integer_queries(vectors({0: 1.0}, {1: 1.0}), ints(1, 1), n=1)) == 1


def test_integer_weights_stay_what_they_are():
    weights = {term: float(term + 1) for term in range(32)}
    (found,) = integer_queries(vectors(weights), np.ones(32, np.int64), n=1)
    assert found.weights.tolist() == list(range(1, 33))


def test_rows_come_back_from_an_index_as_they_went_in(tmp_path, collection):
    build_lexmax(collection, tmp_path / "idx")
    found = read_index_rows(tmp_path / "idx")
    for name in ("indptr", "terms", "impacts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(collection, name))


def test_reordering_moves_documents_and_loses_none(tmp_path, collection):
    build_lexmax(collection, tmp_path / "idx", reorder=True)
    found = read_index_rows(tmp_path / "idx")
    assert not np.array_equal(found.indptr, collection.indptr)
    assert sorted(np.diff(found.indptr)) == sorted(np.diff(collection.indptr))
    np.testing.assert_array_equal(found.document_frequencies(), collection.document_frequencies())


def test_an_index_with_deletes_is_refused(tmp_path, collection):
    build_lexmax(collection, tmp_path / "idx")
    with Collection.open(tmp_path / "idx") as writer:
        writer.delete(["3"])
        writer.commit()
    with pytest.raises(RepresentationError, match="lexmax compact"):
        read_index_rows(tmp_path / "idx")


def test_npz_in_csr_layout_is_sorted_and_quantised(tmp_path):
    np.savez(tmp_path / "v.npz", indptr=[0, 2, 3], indices=np.uint16([5, 1, 2]), data=[0.5, 1.0, 0.004])
    rows = read_npz(tmp_path / "v.npz")
    assert (rows.indptr.tolist(), rows.terms.tolist(), rows.impacts.tolist()) == ([0, 2, 3], [1, 5, 2], [255, 128, 1])


@pytest.mark.parametrize(
    "arrays",
    [
        {"indptr": [0, 1]},
        {"indptr": [0, 3], "indices": [1], "data": [1.0]},
        {"indptr": [0, 2], "indices": [1, 1], "data": [1.0, 1.0]},
        {"indptr": [0, 1], "indices": [1], "data": [-1.0]},
        {"indptr": np.array([0, None], object), "indices": [1], "data": [1.0]},
    ],
)
def test_malformed_npz_is_named(tmp_path, arrays):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(DatasetError, match=r"v\.npz"):
        read_npz(tmp_path / "v.npz")


def test_query_vectors_are_read_in_both_layouts_and_packed(tmp_path):
    lines = '{"id": "1", "vector": {"cat": 2, "dog": 0}}\n{"query": "x", "terms": {"hat": "1.5"}}\n{"vector": {"never": 1}}\n'
    (tmp_path / "q.jsonl").write_text(lines)
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    expected = [{"cat": 2.0}, {"hat": 1.5}]
    assert read_query_vectors(tmp_path / "q.jsonl", 2) == expected
    assert read_query_vectors(tmp_path / "q.jsonl.gz", 2) == expected


@pytest.mark.parametrize("line", ["{", '{"id": 1}', '{"vector": [1]}', '{"vector": {"a": "b"}}'])
def test_malformed_query_vectors_are_named_by_line(tmp_path, line):
    (tmp_path / "q.jsonl").write_text('{"vector": {"a": 1}}\n' + line)
    with pytest.raises(DatasetError, match="line 2"):
        read_query_vectors(tmp_path / "q.jsonl", 5)


def test_query_terms_are_looked_up_or_numbers_or_ranked(tmp_path):
    records = [{"b": 1.0, "zebra": 2.0}, {"b": 3.0}]
    with Collection.create(tmp_path, {"a": NewField(encoder=engines.ENCODER, vocabulary=["a", "b"])}) as writer:
        writer.add([Document(doc_id="x", text="")], {"a": vectors({0: 1.0})})
        writer.commit()
        vocabulary = writer.snapshot().field("a").vocabulary
    found, how = number_terms(records, vocabulary, ints(9, 9))
    assert found.terms.tolist() == [1, 1]
    assert "vocabulary of the index" in how
    found, how = number_terms([{"7": 1.0, "12": 2.0}], Vocabulary([]), ints(1))
    assert found.terms.tolist() == [7, 12]
    assert how == "terms are numbers"
    found, how = number_terms(records, None, ints(5, 2, 8))  # b is in most queries and term 2 in most documents
    assert [found.row(i)[0].tolist() for i in range(2)] == [[0, 2], [2]]
    assert "rank in frequency" in how


def test_sampled_queries_are_the_heaviest_terms_of_documents(collection):
    for terms, weights in (sample_queries(collection, 5, seed=0).row(i) for i in range(5)):
        assert len(terms) == 31
        rows = [collection.terms[collection.indptr[d] : collection.indptr[d + 1]] for d in range(len(collection))]
        owners = [d for d, row in enumerate(rows) if np.isin(terms, row).all()]
        assert owners
        assert any(
            sorted(collection.impacts[collection.indptr[d] : collection.indptr[d + 1]])[-31:] == sorted(weights) for d in owners
        )


# The judge


def test_recall_lets_ties_at_the_kth_score_replace_each_other():
    best = ints(9, 7, 5, 5, 5, 2)
    assert recall(ints(9, 7, 5), best, 3) == 1.0  # whichever of the three fives
    assert recall(ints(9, 5, 5), best, 3) == 1.0  # reaching the k-th score counts; exactness is asked elsewhere
    assert recall(ints(9, 2, 1), best, 3) == pytest.approx(1 / 3)
    assert recall(ints(9, 2, 7), best, 2) == pytest.approx(1 / 2)  # only the first k count
    assert recall(ints(), best, 3) == 0.0
    assert recall(ints(), ints(), 3) == 1.0


def test_best_scores_fall_and_leave_out_zeros():
    assert best_scores(ints(0, 3, 9, 0, 3), 4).tolist() == [9, 3, 3]
    assert best_scores(ints(1, 3, 9), 2).tolist() == [9, 3]


def test_the_judge_against_a_collection_by_hand():
    rows = Rows(ints(0, 2, 3, 4, 5), np.int32([0, 1, 0, 1, 2]), np.uint8([10, 1, 12, 12, 255]))
    judge = Judge(rows, [query({0: 2, 1: 3})], depth=3)
    assert judge.scores(0, ints(3, 2, 1, 0)).tolist() == [0, 36, 24, 23]
    assert judge.best[0].tolist() == [36, 24, 23]
    assert judge.verdict([ints(2, 1)], 2) == (1.0, 1.0, 0)
    assert judge.verdict([ints(1, 2)], 2) == (1.0, 1.0, 0)  # order is not judged, documents are
    assert judge.verdict([ints(2, 0)], 2) == (0.5, 0.5, 1)
    assert judge.verdict([ints(2, 2)], 2) == (0.5, 0.5, 1)  # the same document twice
    assert judge.verdict([ints(2, 1, 0)], 10) == (1.0, 1.0, 0)  # no fourth document has a term
    assert judge.verdict([ints(2, 1, 0, 3)], 10) == (1.0, 1.0, 0)  # one without any does no harm


# Timing


def test_engines_alternate_and_each_answers_the_whole_stream_in_a_pass():
    calls = []

    def engine(name):
        return lambda asked, k: calls.append((name, asked, k)) or asked * 10

    streams = interleave({"a": engine("a"), "b": engine("b")}, {"a": [1, 2], "b": [1, 2]}, 7, 2)
    one_pass = [("a", 1, 7), ("a", 2, 7), ("b", 1, 7), ("b", 2, 7)]
    assert calls == [("a", 1, 7), ("b", 1, 7), *one_pass, *one_pass]  # after one untimed call each
    assert streams["a"].answers == [10, 20]
    assert streams["b"].cpu_us.shape == streams["b"].wall_us.shape == (2,)
    with pytest.raises(ValueError, match="one pass"):
        interleave({}, {}, 7, 0)


def test_the_best_pass_counts_for_each_query(monkeypatch):
    clock = {"now": 0}
    costs = iter([0, 5000, 1000, 2000, 7000])  # the untimed call, then two passes of two queries
    for name in ("thread_time_ns", "process_time_ns", "perf_counter_ns"):
        monkeypatch.setattr(f"lexmax.eval.bench.timing.time.{name}", lambda: clock["now"])
    (stream,) = interleave({"a": lambda *_: clock.update(now=clock["now"] + next(costs))}, {"a": [0, 0]}, 1, 2).values()
    assert stream.cpu_us.tolist() == stream.wall_us.tolist() == [2.0, 1.0]
    assert stream.other_threads == 0.0


# The report


def stream(*cpu_us: float) -> Stream:
    return Stream(np.array(cpu_us), np.array(cpu_us) * 2, [], 0.0)


def test_ratios_are_paired_by_query():
    row = make_row("x", 10, stream(100.0, 10.0, 60.0), stream(10.0, 10.0, 20.0), (1.0, 0.5, 2))
    assert row["ratio_to_lexmax_median"] == np.median([10, 1, 3])
    assert row["ratio_to_lexmax_p1"] == pytest.approx(np.percentile([10, 1, 3], 1), abs=1e-3)
    assert (row["p50_us"], row["wall_p50_us"], row["recall@10"], row["recall@k"], row["n_inexact"]) == (60, 120, 1, 0.5, 2)


def test_the_best_of_a_family_is_the_fastest_with_enough_recall():
    def row(engine, ratio, found):
        return {"engine": engine, "ratio_to_lexmax_median": ratio, "recall@k": found, "best": False}

    rows = [row("s-1", 1.0, 0.9), row("s-2", 3.0, 0.995), row("s-3", 4.0, 1.0), row("t-1", 1.0, 0.5), row("scipy", 1.0, 1.0)]
    mark_best(rows, {"s": 0.99, "t": 0.9})
    assert [r["engine"] for r in rows if r["best"]] == ["s-2"]
    assert [r["engine"] for r in shortlist(rows)] == ["s-2", "t-1", "scipy"]


# Everything together


@pytest.fixture(scope="module")
def report() -> Report:
    bench = SparseBench(n_docs=1500, n_queries=6, ks=(5, 1000), n_passes=1, engines=["scipy", "naive-scan"])
    return run_sparse_bench(bench)


def test_a_small_run_has_a_row_for_every_engine_k_and_kind_and_all_are_exact(report):
    engines_run = OURS | {"scipy", "naive-scan"}
    found = [(row["queries"], row["k"], row["engine"]) for row in report.rows]
    assert len(found) == len(set(found)) == 2 * 2 * len(engines_run)
    assert set(found) == {(kind, k, name) for kind in ("expanded", "short") for k in (5, 1000) for name in engines_run}
    for row in report.rows:
        assert (row["n_inexact"], row["recall@10"], row["recall@k"]) == (0, 1.0, 1.0), row
        assert row["p99_us"] >= row["p50_us"] > 0
        assert row["n_empty"] == 0
        assert row["build_s"] > 0
        assert row["peak_mb"] > 10
        assert row["bytes_per_posting"] > 3
    assert all(row["ratio_to_lexmax_median"] == 1 for row in report.rows if row["engine"] == LEXMAX)


def test_the_report_is_json_and_a_table_and_a_picture(report, tmp_path):
    assert json.loads(json.dumps(report.to_json())) == report.to_json()
    assert report.setup["n_docs"] == 1500
    assert report.setup["short_queries"]["n"] == 6
    lines = report.to_markdown().splitlines()
    assert lines[0].startswith("| queries | k | engine | p50")
    assert sum(line.startswith(("| expanded", "| short")) for line in lines) == len(report.rows)
    from lexmax.eval.bench.plot import plot_report

    plot_report(report, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_report(Report(rows=[], setup={}), tmp_path / "q.png")


def test_an_engine_that_answers_wrongly_is_found_out(monkeypatch):
    def open_wrong(folder):
        opened = open_lexmax(folder)
        right = opened.searches[LEXMAX]

        def documents(hits):
            return hits.doc_nums.astype(np.int64)[1:]  # loses the best

        return engines.Opened(searches={"wrong": right}, prepare=opened.prepare, documents=documents, rounded=opened.rounded)

    monkeypatch.setitem(ENGINES, "wrong", Engine(build=build_lexmax, open=open_wrong))
    monkeypatch.setattr(sparse, "build_apart", build_in_this_process)
    found = run_sparse_bench(SparseBench(n_docs=300, n_queries=4, ks=(10,), n_passes=1, engines=["wrong"]))
    wrong = [row for row in found.rows if row["engine"] == "wrong"]
    assert [row["n_inexact"] for row in wrong] == [4, 4]
    assert all(row["recall@10"] <= 0.9 for row in wrong)


def build_in_this_process(engine, rows, index, *, reorder=False):
    from lexmax.eval.bench.build import build_here

    return build_here(engine, rows, index, reorder=reorder)


def test_an_engine_that_is_not_installed_is_left_out_with_a_word(monkeypatch):
    monkeypatch.setitem(ENGINES, "ghost", Engine(build=build_lexmax, open=open_lexmax, package="no_such_package_here"))
    monkeypatch.setattr(sparse, "build_apart", build_in_this_process)
    said = []
    found = run_sparse_bench(SparseBench(n_docs=300, n_queries=2, ks=(3,), n_passes=1, engines=["ghost"]), said.append)
    assert {row["engine"] for row in found.rows} == OURS
    assert any("ghost is left out" in line and "lexmax[bench]" in line for line in said)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"engines": ["fast"]}, "unknown engine fast"),
        ({"ks": (0,)}, "at least 1"),
        ({"index": "i", "vectors": "v"}, "as it is"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SparseBench(**wrong)


def test_the_command_compares_on_an_index_with_given_queries(tmp_path, capsys, collection):
    build_lexmax(collection, tmp_path / "idx")
    (tmp_path / "q.jsonl").write_text('{"vector": {"3": 1.0, "40": 2.0}}\n{"vector": {"99999999": 1.0}}\n')
    index, queries = str(tmp_path / "idx"), str(tmp_path / "q.jsonl")
    arguments = ["bench", "sparse", "--index", index, "--engines", "lexmax", "--k", "10", "--passes", "1", "--json"]
    assert main([*arguments, "--query-vectors", queries]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["engine"] for row in found["rows"]} == OURS
    assert {row["queries"] for row in found["rows"]} == {"given"}
    assert found["setup"]["given_queries"]["n"] == 1
    assert found["rows"][0]["build_s"] is None
    assert main([*arguments, "--threads", "2"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["queries"] for row in rows} == {"sampled"}
    assert {row["engine"] for row in rows} == {*OURS, "lexmax-2-threads"}
    assert {row["engine"] for row in rows if row["batch_wall_us"] is not None} == {"lexmax", "lexmax-2-threads"}
    assert all(row["recall@k"] == 1 and row["p50_us"] > 0 for row in rows)
    (tmp_path / "q.jsonl").write_text('{"vector": {"99999999": 1.0}}\n')
    assert main([*arguments, "--query-vectors", queries]) == 2
    assert "none of the given queries" in capsys.readouterr().err


def test_options_of_vectors_do_not_go_with_bm25(capsys):
    for option in (["--threads", "2"], ["--reorder"]):
        assert main(["bench", "sparse", "--bm25", "corpus", *option]) == 2
        assert "--bm25 compares texts in one thread" in capsys.readouterr().err


def test_bm25_is_compared_on_text(tmp_path):
    words = [f"word{i}" for i in range(60)]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 30)) for _ in range(200)]
    lines = [json.dumps({"_id": str(i), "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    found = run_bm25_bench(str(tmp_path / "c.jsonl"), n_queries=10, ks=(10, 1000), n_passes=1)
    assert [(row["engine"], row["k"]) for row in found.rows] == [
        (n, k) for k in (10, 200) for n in ("lexmax", "bm25s", "bm25q")
    ]
    recalls = {row["engine"]: row["recall@k"] for row in found.rows if row["k"] == 10}
    assert min(recalls["bm25s"], recalls["bm25q"]) > 0.99
    assert recalls["lexmax"] > 0.9  # 8-bit weights


@pytest.mark.parametrize(("engine", "least"), [("bmp-8", 0.9), ("impact-index", 1.0), ("sindi", 1.0), ("seismic", 0.5)])
def test_a_peer_is_spoken_to_in_its_own_language(engine, least):
    found = run_sparse_bench(SparseBench(n_docs=400, n_queries=5, ks=(10,), n_passes=1, engines=[engine]))
    peers = [row for row in found.rows if row["engine"] not in OURS]
    assert peers
    assert all(row["recall@k"] >= least for row in peers), [(row["engine"], row["recall@k"]) for row in peers]


def test_a_panic_of_bmp_is_an_empty_answer(tmp_path):
    rows = Rows(np.arange(0, 41, 2), np.tile(np.array([0, 1], np.int32), 20), np.full(40, 255, np.uint8))
    ENGINES["bmp-8"].build(rows, tmp_path)
    opened = ENGINES["bmp-8"].open(tmp_path)
    search = opened.searches["bmp-8"]
    assert len(opened.documents(search(opened.prepare(query({0: 32})), 10))) in {0, 10}  # 0.2.8 panics here
    with pytest.raises(TypeError):
        search("no dict", 10)
