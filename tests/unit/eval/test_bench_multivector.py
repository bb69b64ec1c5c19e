import json
import os
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from lexmax.__main__ import main
from lexmax.eval.bench import multivector, token_peers
from lexmax.eval.bench.multivector import MultiVectorBench, exact_scores, run_multivector_bench
from lexmax.eval.bench.report import Report
from lexmax.eval.bench.token_engines import ENGINES, TachiomTokens, TokenEngine, build_lexmax, build_tachiom
from lexmax.eval.bench.token_generator import TokenRecipe, generate_tokens
from lexmax.eval.bench.token_peers import FAST_PLAID, FastPlaidTokens, Worker
from lexmax.eval.bench.token_report import plot_tokens, ratio_at_recall, recalls
from lexmax.eval.bench.token_sets import TokenSet, read_index, read_npz, read_queries
from lexmax.eval.bench.token_worker import serve, timed
from lexmax.index.errors import DatasetError, RepresentationError
from lexmax.index.representations.multivectors import MultiVectors

SMALL = TokenRecipe(n_docs=150, n_queries=6, dim=32, n_words=500, n_topics=10, tokens=12.0, query_tokens=8)


@pytest.fixture(scope="module")
def tokens() -> TokenSet:
    return generate_tokens(SMALL)


@pytest.fixture(scope="module")
def npz(tokens, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("set") / "set.npz"
    queries = tokens.queries.tokens.reshape(SMALL.n_queries, SMALL.query_tokens, SMALL.dim)
    np.savez(path, offsets=tokens.offsets, tokens=tokens.tokens, queries=queries, token_ids=tokens.token_ids)
    return str(path)


def slow_maxsim(tokens: TokenSet, query: int, document: int) -> float:
    words = tokens.rows(document, document + 1).tokens
    return float(sum(max(float(q @ w) for w in words) for q in tokens.queries.row(query))) if len(words) else 0.0


# The generator


def test_the_same_recipe_gives_the_same_tokens_and_another_seed_others(tokens):
    again, other = generate_tokens(SMALL), generate_tokens(TokenRecipe(n_docs=150, dim=32, tokens=12.0, seed=1))
    np.testing.assert_array_equal(again.tokens, tokens.tokens)
    np.testing.assert_array_equal(again.queries.tokens, tokens.queries.tokens)
    assert not np.array_equal(other.offsets, tokens.offsets)


def test_generated_tokens_have_unit_length_and_the_promised_widths(tokens):
    assert len(tokens.rows(0, len(tokens))) == 150  # raises unless every token has unit length
    assert np.diff(tokens.offsets).min() >= 1
    assert 10 < np.diff(tokens.offsets).mean() < 14
    assert set(np.diff(tokens.queries.offsets)) == {8}


def test_tokens_of_one_word_are_nearer_to_each_other_than_to_others(tokens):
    vectors = tokens.tokens.astype(np.float32)
    products = vectors @ vectors.T
    same = tokens.token_ids[:, None] == tokens.token_ids[None]
    np.fill_diagonal(same, False)
    others = products[tokens.token_ids[:, None] != tokens.token_ids[None]]
    assert products[same].mean() > others.mean() + 0.3


def test_word_frequencies_fall_as_zipf_says():
    counts = np.sort(np.bincount(generate_tokens(TokenRecipe(n_docs=500, dim=4)).token_ids))[::-1]
    assert counts[0] > 10 * counts[100] > 0


def test_a_recipe_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        TokenRecipe(n_docs=0)


# Sets


def test_a_set_comes_back_from_its_folder(tokens, tmp_path):
    tokens.save(tmp_path)
    again = TokenSet.load(tmp_path)
    for name in ("offsets", "tokens", "token_ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(tokens, name))
    np.testing.assert_array_equal(again.queries.tokens, tokens.queries.tokens)


def test_an_npz_is_read_and_its_queries_are_cut(tokens, npz):
    found = read_npz(npz, 2)
    np.testing.assert_array_equal(found.tokens, tokens.tokens)
    np.testing.assert_array_equal(found.queries.tokens, tokens.queries.tokens[:16])
    assert len(read_queries(npz, 100)) == 6


def test_queries_of_several_lengths_come_with_offsets(tmp_path):
    unit = np.eye(4, dtype=np.float32)[:3]
    np.savez(tmp_path / "q.npz", queries=unit, query_offsets=np.array([0, 1, 3]))
    found = read_queries(tmp_path / "q.npz", 10)
    assert np.diff(found.offsets).tolist() == [1, 2]
    np.testing.assert_array_equal(found.tokens, unit)


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": np.array([0, 2, 9])},
        {"tokens": np.zeros((2, 4), np.float16)},
        {"queries": np.eye(3, dtype=np.float32)[None]},
        {"token_ids": np.zeros(1, int)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change):
    sound = {"offsets": np.array([0, 1, 2]), "tokens": np.eye(4)[:2], "queries": np.eye(4)[None], "token_ids": np.zeros(2, int)}
    np.savez(tmp_path / "sound.npz", **sound)
    assert len(read_npz(tmp_path / "sound.npz", 5)) == 2
    np.savez(tmp_path / "set.npz", **(sound | change))
    with pytest.raises(DatasetError, match=r"set\.npz"):
        read_npz(tmp_path / "set.npz", 5)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "x.npz").write_text("offsets")
    with pytest.raises(DatasetError, match="NPZ"):
        read_queries(tmp_path / "x.npz", 5)


def test_documents_of_an_index_are_decoded_in_their_order(tokens, tmp_path):
    tokens.save(tmp_path / "tokens")
    build_lexmax(tmp_path / "tokens", tmp_path, nbits=2, exact=True)
    found = read_index(tmp_path / "index", tokens.queries)
    np.testing.assert_array_equal(found.offsets, tokens.offsets)
    assert np.sum(found.tokens.astype(float) * tokens.tokens, axis=1).min() > 0.99
    with pytest.raises(RepresentationError, match="dim 4"):
        read_index(tmp_path / "index", MultiVectors.of([np.eye(4, dtype=np.float32)], 4))


# The judge


def test_exact_scores_are_maxsim(tokens):
    scores = exact_scores(tokens)
    assert scores.shape == (6, 150)
    for query, document in ((0, 0), (3, 149), (5, 77)):
        assert scores[query, document] == pytest.approx(slow_maxsim(tokens, query, document), abs=1e-3)


def test_a_document_without_tokens_scores_0():
    unit = np.eye(4)[:2].astype(np.float16)
    found = exact_scores(TokenSet(np.array([0, 0, 2, 2]), unit, MultiVectors.of([np.eye(4, dtype=np.float32)[:1]], 4)))
    np.testing.assert_array_equal(found, [[0, 1, 0]])


def test_recall_counts_ties_for_each_other_and_documents_once():
    scores = np.array([[5.0, 4.0, 3.0, 3.0, 1.0]] * 4, np.float32)
    answers = [np.array(ids) for ids in ([0, 1, 3], [0, 0, 4], [4, 0, 1, 2], [])]
    np.testing.assert_allclose(recalls([a.astype(np.int64) for a in answers], scores, 3), [1, 1 / 3, 2 / 3, 0])


def test_the_ratio_is_to_the_cheapest_rival_that_recalls_as_much():
    ones = np.ones(4)
    rivals = [(0.8 * ones, 1 * ones), (0.9 * ones, 2 * ones), (0.95 * ones, 8 * ones)]
    assert ratio_at_recall(0.9 * ones, 10 * ones, rivals) == 5.0
    assert ratio_at_recall(0.91 * ones, 10 * ones, rivals) == 1.25
    assert ratio_at_recall(0.96 * ones, 10 * ones, rivals) is None


# The comparison


@pytest.fixture(scope="module")
def report(npz) -> Report:
    bench = MultiVectorBench(npz=npz, ks=(5, 20), n_slow_queries=2, n_passes=1, engines=["lexmax", "lexmax-4bit"])
    return run_multivector_bench(bench)


def test_every_setting_is_a_row_at_every_k(report):
    names = [row["engine"] for row in report.rows if row["k"] == 5]
    assert names[0] == "lexmax"
    assert {"lexmax-exhaustive", "lexmax-4bit", "lexmax-16-512-256-0", "lexmax-16-512-256-32"} <= set(names)
    assert sorted(names) == sorted(row["engine"] for row in report.rows if row["k"] == 20)
    assert {row["n_queries"] for row in report.rows if row["engine"] == "lexmax-exhaustive"} == {2}


def test_rows_have_what_the_report_promises(report):
    for row in report.rows:
        assert row["p99_us"] >= row["p50_us"] > 0
        assert 0 <= row["recall@10"] <= 1
        assert row["batch_threads"] == 2
        assert min(row["batch_cpu_us"], row["batch_wall_us"], row["build_cpu_s"], row["build_wall_s"]) > 0
    by_name = {row["engine"]: row for row in report.rows if row["k"] == 5}
    assert by_name["lexmax-exhaustive"]["recall@k"] >= 0.9
    assert by_name["lexmax"]["recall@k"] >= 0.9  # the set is small enough to score everything
    assert by_name["lexmax-4-256-64-0"]["recall@k"] <= by_name["lexmax"]["recall@k"]
    assert by_name["lexmax"]["bytes_per_token"] > by_name["lexmax-4bit"]["bytes_per_token"]
    for name, ratio in ((name, row["ratio_at_recall"]) for name, row in by_name.items()):
        assert ratio >= 1, name  # every row of lexmax is its own rival


def test_the_report_is_json_markdown_and_a_picture(report, tmp_path):
    assert json.loads(json.dumps(report.to_json()))["setup"]["n_docs"] == 150
    text = report.to_markdown()
    assert "| 5 | lexmax |" in text
    assert "| lexmax-4bit | " in text
    plot_tokens(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_tokens(Report(rows=[], setup={}), tmp_path / "none.png")


def test_an_index_is_compared_as_it_decodes(tokens, npz, tmp_path):
    tokens.save(tmp_path / "tokens")
    build_lexmax(tmp_path / "tokens", tmp_path, nbits=2, exact=True)
    told = []
    bench = MultiVectorBench(
        index=str(tmp_path / "index"), queries=npz, ks=(5,), n_slow_queries=1, n_passes=1, n_threads=1, engines=["tachiom"]
    )
    found = run_multivector_bench(bench, told.append)
    assert found.setup["n_docs"] == 150
    assert found.rows[0]["batch_cpu_us"] is None
    assert any("tachiom is left out" in line for line in told)  # not installed, or without token ids


def test_indexes_are_kept_for_the_same_documents_and_refused_for_others(npz, tmp_path):
    told = []
    bench = MultiVectorBench(npz=npz, ks=(5,), n_queries=1, n_passes=1, n_threads=1, engines=["lexmax"], work=str(tmp_path))
    first = run_multivector_bench(bench)
    again = run_multivector_bench(bench, told.append)
    assert any("taking lexmax" in line for line in told)
    assert again.rows[0]["build_cpu_s"] == first.rows[0]["build_cpu_s"]
    with pytest.raises(ValueError, match="choose another folder"):
        run_multivector_bench(MultiVectorBench(n_docs=20, engines=["lexmax"], work=str(tmp_path)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ks": ()}, "at least 1"),
        ({"n_passes": 0}, "at least 1"),
        ({"index": "x"}, "file of queries"),
        ({"queries": "x"}, "file of queries"),
        ({"index": "x", "npz": "y"}, "not both"),
        ({"engines": ["plaid"]}, "unknown engine plaid"),
        ({"engines": [FAST_PLAID]}, "--fast-plaid-python"),
    ],
)
def test_wrong_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MultiVectorBench(**wrong)


# Peers


class FakeTachiom:
    """Stands for the package: best documents by row sums, padded as it pads."""

    len = 3

    def search(self, query, k, k_docs_to_score=500, **settings):
        self.asked = k_docs_to_score
        return np.zeros(k), np.array([2, 0, *[2**32 - 1] * (k - 2)])

    def batch_search(self, tokens, n_queries, k, offsets, num_threads, **settings):
        assert offsets.tolist() == [0, 2, 5]
        assert num_threads == 2


def test_padding_of_tachiom_is_dropped_and_k_documents_are_scored(monkeypatch, tmp_path):
    engine = FakeTachiom()
    fake = type("module", (), {"Tachiom": type("T", (), {"load": staticmethod(lambda path: engine)})})
    monkeypatch.setattr("lexmax.eval.bench.token_engines.import_module", lambda name: fake)
    opened = TachiomTokens(tmp_path, tmp_path)
    assert opened.search("tachiom-5-50", np.zeros((2, 4), np.float32), 100).tolist() == [2, 0]
    assert engine.asked == 100
    opened.search_all("tachiom", [np.zeros((2, 4), np.float32), np.zeros((3, 4), np.float32)], 5, 2)


def test_what_tachiom_prints_while_it_builds_stays_out_of_the_report(monkeypatch, tmp_path, capfd):
    def build(*files):
        assert all(Path(file).suffix == ".npy" for file in files)
        os.write(1, b"clustering\n")
        return type("Index", (), {"save": lambda self, path: Path(path).write_text("x")})()

    fake = type("module", (), {"Tachiom": type("T", (), {"build": staticmethod(build)})})
    monkeypatch.setattr("lexmax.eval.bench.token_engines.import_module", lambda name: fake)
    assert build_tachiom(tmp_path, tmp_path)["build_wall_s"] > 0
    assert (tmp_path / "index.bin").exists()
    said = capfd.readouterr()
    assert said.out == ""
    assert "clustering" in said.err


STAND_IN = """
import json, sys
tokens, index, threads, task = sys.argv[1:]
if task == "build":
    open(index + "/files", "w").write("12345")
    print(json.dumps({"build_cpu_s": 2.0, "build_wall_s": 3.0}))
    raise SystemExit
print(json.dumps({"fast-plaid": "stand-in"}), flush=True)
for number, line in enumerate(sys.stdin):
    request = json.loads(line)
    documents = [list(range(request["k"])) for _ in request["queries"]]
    print(json.dumps({"cpu_us": 1000.0 + number % 2, "wall_us": 2000.0, "documents": documents}), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(token_peers.token_worker, "__file__", str(script))


def test_a_peer_in_another_environment_is_timed_by_its_own_clock(stand_in, npz, tmp_path):
    bench = MultiVectorBench(
        npz=npz, ks=(5,), n_slow_queries=3, n_passes=2, engines=["lexmax", FAST_PLAID], fast_plaid_python=sys.executable
    )
    found = run_multivector_bench(bench)
    rows = [row for row in found.rows if row["index"] == FAST_PLAID]
    assert {row["engine"] for row in rows} == {f"fast-plaid-{p}-{f}" for p, f in token_peers.FAST_PLAID_GRID}
    for row in rows:
        assert 1000 <= row["p50_us"] <= 1001
        assert row["wall_p50_us"] == 2000
        assert row["n_queries"] == 3
        assert row["build_cpu_s"] == 2.0
        assert row["ratio_at_recall"] > 0
    assert found.setup["versions"][FAST_PLAID] == "stand-in"


def test_times_of_the_passes_give_the_best_and_leave_the_warming_search_out(stand_in, tmp_path):
    opened = FastPlaidTokens(tmp_path, tmp_path, python=sys.executable)
    for _ in range(5):  # a warming search, and two passes of two queries
        assert opened.search("fast-plaid-2-512", 0, 2).tolist() == [0, 1]
    np.testing.assert_array_equal(opened.take_times("fast-plaid-2-512", 2), [[1001, 1000], [2000, 2000]])
    opened.close()


def test_a_worker_that_dies_says_why(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no such index')"]
    with pytest.raises(RuntimeError, match="status 1:\nno such index"):
        Worker(command, tmp_path / "log")


def test_the_worker_answers_each_line_with_times_and_documents(monkeypatch, tokens, tmp_path):
    torch = import_module("torch")
    tokens.save(tmp_path)

    class Plaid:
        def __init__(self, index, device):
            assert device == "cpu"

        def search(self, queries, top_k, show_progress, n_ivf_probe, n_full_scores):
            assert all(query.shape == (8, 32) for query in queries)
            return [[(n_ivf_probe, 0.5)] * top_k for _ in queries]

    modules = {"torch": torch, "fast_plaid.search": type("module", (), {"FastPlaid": Plaid})}
    monkeypatch.setattr("lexmax.eval.bench.token_worker.import_module", modules.__getitem__)
    monkeypatch.setattr("lexmax.eval.bench.token_worker.version", lambda name: "1")
    said = []
    request = {"queries": [0, 3], "k": 2, "threads": torch.get_num_threads(), "n_ivf_probe": 7, "n_full_scores": 9}
    serve(tmp_path, tmp_path, torch.get_num_threads(), [json.dumps(request)], said.append)
    assert said[0] == {"fast-plaid": "1", "torch": "1"}
    assert said[1]["documents"] == [[7, 7], [7, 7]]
    assert said[1]["wall_us"] > 0


def test_a_timed_call_returns_its_result():
    result, times = timed(lambda: sum(range(1000)))
    assert result == 499500
    assert times["wall_us"] > 0


# The command


def test_the_command_prints_rows(npz, capsys):
    assert main(["bench", "multivector", "--npz", npz, "--engines", "lexmax", "--k", "5", "--passes", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {"engine", "k", "p50_us", "p99_us", "recall@10"} <= set(rows[0])
    assert main(["bench", "multivector", "--index", "x"]) == 2
    assert "queries" in capsys.readouterr().err


def test_engines_that_are_not_installed_are_told(npz, monkeypatch):
    ghost = TokenEngine(build=lambda *_: {}, open=lambda *_: None, package="no_such_package", distributions=["ghost"])
    monkeypatch.setattr(multivector, "ENGINES", {"lexmax": ENGINES["lexmax"], "ghost": ghost})
    told = []
    run_multivector_bench(MultiVectorBench(npz=npz, ks=(5,), n_slow_queries=1, n_passes=1), told.append)
    assert any("pip install ghost" in line for line in told)
    assert any("fast-plaid is left out" in line for line in told)
