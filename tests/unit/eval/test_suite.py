"""Several systems on several collections; networks are tiny and random."""

import json

import numpy as np
import pytest
from models import VOCABULARY, masked_lm, raw, tokenizer, write_json

from lexmax.__main__ import main
from lexmax.eval.measures import evaluate
from lexmax.eval.suite import dense_vectors
from lexmax.eval.suite.comparison import SuiteReport, evaluate_suite
from lexmax.eval.suite.corpora import Workplace, load_collection
from lexmax.eval.suite.dense_vectors import DenseRanker, open_dense
from lexmax.eval.suite.ranking import Cost, Encoding, run_systems
from lexmax.eval.suite.systems import load_encoders, parse_systems
from lexmax.index.errors import DatasetError
from lexmax.retrieval.encoders.colbert import ColbertEncoder
from lexmax.retrieval.encoders.dense import DenseEncoder, load_dense_encoder
from lexmax.retrieval.encoders.registry import load_encoder
from lexmax.retrieval.pipelines.fusion import reciprocal_rank_fusion, weighted_sum
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig

pytest.importorskip("ranx")

WEATHER = {
    "docs": {"d1": "rain in the city", "d2": "hot day by the sea", "d3": "snow on the hill, cold night"},
    "queries": {"q1": "cold rain", "q2": "hot sea"},
    "qrels": {"q1": {"d3": 2, "d1": 1}, "q2": {"d1": 1}},
}
ROADS = {
    "docs": {"a": "bus on the road", "b": "train in the night", "c": "walk by the river"},
    "queries": {"q1": "night bus", "a": "bus on the road"},
    "qrels": {"q1": {"b": 1}, "a": {"c": 1}},
}


@pytest.fixture(scope="module")
def splade(tmp_path_factory):
    return raw(tmp_path_factory.mktemp("models") / "splade")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = raw(tmp_path_factory.mktemp("models") / "dense")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write_json(
        folder / "modules.json", [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in modules]
    )
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    return folder


@pytest.fixture(scope="module")
def colbert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    vocabulary = [*VOCABULARY, "[unused0]", "[unused1]"]
    masked_lm(n_terms=len(vocabulary)).save_pretrained(folder / "trunk")
    tokenizer(vocabulary).save_pretrained(folder / "trunk")
    config = ColbertStudentConfig(dim=16, query_length=12, document_length=20)
    ColbertStudent(folder / "trunk", config).save(folder / "colbert")
    return folder / "colbert"


def write(folder, content):
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, key in (("corpus.jsonl", "docs"), ("queries.jsonl", "queries")):
        lines = [json.dumps({"_id": number, "text": text}) + "\n" for number, text in content[key].items()]
        (folder / name).write_text("".join(lines))
    rows = [f"{q}\t{d}\t{r}\n" for q, judged in content["qrels"].items() for d, r in judged.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return str(folder)


@pytest.fixture
def work(tmp_path):
    return Workplace(folder=tmp_path / "work")


@pytest.fixture
def folders(tmp_path):
    return [write(tmp_path / "weather", WEATHER), write(tmp_path / "roads", ROADS)]


def ndcg(content, rankings):
    """nDCG@10 of rankings of doc_ids, one a query."""
    run = {q: [(d, 0.0) for d in ranking] for q, ranking in zip(content["queries"], rankings, strict=True)}
    return evaluate(content["qrels"], run, ["nDCG@10"])["nDCG@10"]


def by_vectors(encoder, content):
    """Rankings of exact vectors: MaxSim, or dot products where they are above zero."""
    documents, queries = encoder.encode_documents(list(content["docs"].values())), list(content["queries"].values())
    encoded, rankings = encoder.encode_queries(queries), []
    for q, query_id in enumerate(content["queries"]):
        scores = {}
        for d, doc_id in enumerate(content["docs"]):
            if encoder.kind == "dense":
                scores[doc_id] = float(encoded[q] @ documents[d])
            elif encoder.kind == "colbert":
                scores[doc_id] = float((encoded.row(q) @ documents.row(d).T).max(1).sum())
            else:
                weights = dict(zip(*(part.tolist() for part in documents.row(d)), strict=True))
                scores[doc_id] = sum(w * weights.get(t, 0) for t, w in zip(*encoded.row(q), strict=True))
        rankings.append(sorted((d for d in scores if scores[d] and d != query_id), key=lambda d: -scores[d]))
    return rankings


def test_every_cell_is_what_vectors_say(folders, splade, dense, colbert, work):
    systems = parse_systems(["bm25=bm25", f"sp={splade}", f"cb={colbert}", "rr=rerank:bm25>cb", f"dn=dense:{dense}"])
    report = evaluate_suite(folders, systems, work)
    encoders = {"sp": load_encoder(model=str(splade)), "cb": load_encoder(model=str(colbert)),
                "dn": load_dense_encoder(str(dense))}  # fmt: skip
    for name, encoder in encoders.items():
        for collection, content in (("weather", WEATHER), ("roads", ROADS)):
            assert report.scores[name][collection] == pytest.approx(ndcg(content, by_vectors(encoder, content)))
    # BM25 finds documents with a word in common, and MaxSim orders them
    found = [["d1", "d3"], ["d2"]]
    full = by_vectors(load_encoder(model=str(colbert)), WEATHER)
    ordered = [[d for d in ranking if d in of_query] for ranking, of_query in zip(full, found, strict=True)]
    assert report.scores["rr"]["weather"] == pytest.approx(ndcg(WEATHER, ordered))
    for scores in report.scores.values():
        assert scores["mean"] == pytest.approx((scores["weather"] + scores["roads"]) / 2)
    assert report.n_queries == {"weather": 2, "roads": 2}
    assert report.p_values.keys() == {"sp", "cb", "rr", "dn"}


def test_what_systems_cost(folders, splade, dense, colbert, work):
    systems = parse_systems(["bm25=bm25", f"sp={splade}", f"cb={colbert}", f"dn=dense:{dense}", "rr=rerank:bm25+sp>cb",
                             "f=fusion:rr+dn"])  # fmt: skip
    costs = {name: of["weather"] for name, of in evaluate_suite(folders[:1], systems, work).costs.items()}
    documents, queries = (list(WEATHER[key].values()) for key in ("docs", "queries"))
    for name, model, unit, count in (("sp", splade, "terms", "n_postings"), ("cb", colbert, "tokens", "n_tokens")):
        encoder, found = load_encoder(model=str(model)), costs[name].encoding
        assert found.unit == unit
        assert found.per_document == pytest.approx(getattr(encoder.encode_documents(documents), count) / 3, abs=0.01)
        assert found.per_query == getattr(encoder.encode_queries(queries), count) / 2
    assert costs["bm25"].encoding.per_query == 2
    numbers = costs["dn"].encoding
    assert (numbers.unit, numbers.per_document, numbers.per_query) == ("numbers", 32, 32)
    assert costs["rr"].encoding == costs["cb"].encoding
    assert costs["f"].encoding is None
    each = {name: costs[name].encoding.documents_per_s for name in ("bm25", "sp", "cb", "dn")}
    assert costs["sp"].documents_per_s == pytest.approx(each["sp"])
    assert costs["f"].documents_per_s == pytest.approx(1 / sum(1 / speed for speed in each.values()))
    assert costs["rr"].query_ms > costs["bm25"].query_ms + costs["sp"].query_ms > 0
    assert costs["f"].query_ms == costs["rr"].query_ms + costs["dn"].query_ms


def ranked(texts, folder, work):
    systems = parse_systems(texts)
    return run_systems(systems, load_encoders(systems), load_collection(folder), work)[0]


def test_rankings_are_fused_and_reranked(folders, splade, dense, colbert, work):
    systems = ["bm25=bm25", f"sp={splade}", f"dn=dense:{dense}", "f=fusion:bm25+sp", "w=fusion:bm25*0.3+dn*0.7",
               f"r=rerank:f>model:{colbert}", "g=fusion:r+bm25"]  # fmt: skip
    found = ranked(systems, folders[0], work)
    assert list(found) == ["bm25", "sp", "dn", "f", "w", "r", "g"]
    for q in range(2):
        bm25, sp, dn, r = (found[name][q] for name in ("bm25", "sp", "dn", "r"))
        assert found["f"][q] == reciprocal_rank_fusion([bm25, sp], 100)
        assert found["w"][q] == weighted_sum([bm25, dn], 100, weights=[0.3, 0.7])
        assert found["g"][q] == reciprocal_rank_fusion([r, bm25], 100)
    assert [[d for d, _ in ranking] for ranking in found["r"]] == by_vectors(load_encoder(model=str(colbert)), WEATHER)


def test_the_query_itself_is_left_out(folders, splade, dense, colbert, work):
    systems = [f"sp={splade}", f"dn=dense:{dense}", f"r=rerank:sp>model:{colbert}", "f=fusion:sp+dn"]
    for rankings in ranked(systems, folders[1], work).values():
        assert [sorted(d for d, _ in ranking) for ranking in rankings] == [["a", "b", "c"], ["b", "c"]]


@pytest.fixture
def encoded(monkeypatch):
    """Documents as encoders of token vectors and of single vectors see them, measurements of speed left out."""
    seen = []
    monkeypatch.setattr("lexmax.eval.suite.comparison.ranking.SAMPLE_DOCUMENTS", 1)
    for encoder in (ColbertEncoder, DenseEncoder):

        def record(self, texts, original=encoder.encode_documents):
            seen.extend(texts if len(texts) > 1 else [])
            return original(self, texts)

        monkeypatch.setattr(encoder, "encode_documents", record)
    return seen


def test_only_candidates_are_encoded(folders, colbert, work, encoded):
    """Two documents more, which BM25 finds for no query."""
    content = {**WEATHER, "docs": {**WEATHER["docs"], "d4": "river lake", "d5": "bus"}}
    folder = write(work.folder.parent / "weather", content)
    texts = ["bm25=bm25", f"r=rerank:bm25>model:{colbert}"]
    alone = ranked(texts, folder, work)["r"]
    assert sorted(encoded) == sorted(WEATHER["docs"].values())
    assert len(list(work.folder.glob("weather-*-of-*"))) == 1  # and the corpus that it was built of is gone
    encoded.clear()
    assert ranked(texts, folder, work)["r"] == alone
    assert encoded == []
    table = ranked([*texts, f"cb={colbert}", "s=rerank:bm25>cb"], folder, work)
    assert sorted(encoded) == sorted(content["docs"].values())
    for one, other in zip(alone, table["s"], strict=True):
        assert [d for d, _ in one] == [d for d, _ in other]
        assert [score for _, score in one] == pytest.approx([score for _, score in other], rel=0.01)


@pytest.mark.parametrize("cut", ["r=rerank:bm25>model:COLBERT", "d=dense:DENSE", "c=COLBERT"])
def test_what_was_interrupted_goes_on(cut, folders, dense, colbert, tmp_path, monkeypatch, capsys):
    cut = cut.replace("COLBERT", str(colbert)).replace("DENSE", str(dense))
    arguments = ["eval", "--suite", folders[0], "--system", "bm25=bm25", "--system", cut, "--json", "--work"]

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for encoder in (ColbertEncoder, DenseEncoder):
            patch.setattr(encoder, "encode_documents", interrupt)
        assert main([*arguments, str(tmp_path / "work")]) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    scores = []
    for work in ("work", "other"):
        assert main([*arguments, str(tmp_path / work)]) == 0
        scores.append(json.loads(capsys.readouterr().out)["systems"][cut[0]]["scores"])
    assert scores[0] == scores[1]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == sorted(
        path.name for path in (tmp_path / "other").iterdir()
    )


def test_rerankings_with_one_model_encode_once(folders, splade, colbert, work, encoded):
    ranked(["bm25=bm25", f"r=rerank:bm25>model:{colbert}", f"sp={splade}", f"s=rerank:sp+bm25>model:{colbert}",
            f"t=rerank:r+sp>model:{colbert}"], folders[0], work)  # fmt: skip
    assert sorted(encoded) == sorted(WEATHER["docs"].values())


def test_candidates_of_several_systems_are_merged(folders, splade, colbert, work):
    found = ranked(["bm25=bm25", f"sp={splade}", f"r=rerank:bm25+sp>model:{colbert}"], folders[0], work)
    assert [[d for d, _ in ranking] for ranking in found["r"]] == by_vectors(load_encoder(model=str(colbert)), WEATHER)


def test_nothing_to_rerank(folders, colbert, work):
    folder = write(work.folder.parent / "weather", {**WEATHER, "queries": {"q1": "bus", "q2": "train"}})
    assert ranked(["bm25=bm25", f"r=rerank:bm25>model:{colbert}"], folder, work) == {"bm25": [[], []], "r": [[], []]}


class Numbers:
    """An encoder whose vectors are the numbers in the texts."""

    def encode_queries(self, texts):
        return np.array([[float(number) for number in text.split()] for text in texts], np.float32)


@pytest.mark.parametrize("n_scores", [1, 7, 1 << 24])
def test_dense_ranking_is_exact_with_ties_in_order(n_scores, monkeypatch):
    monkeypatch.setattr(dense_vectors, "SCORES_AT_ONCE", n_scores)
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (50, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, (9, 3)).astype(np.float32)
    texts = [" ".join(map(str, query)) for query in queries]
    for k in (1, 7, 50, 60):
        found = DenseRanker(Numbers(), [f"d{i}" for i in range(50)], vectors).rank(texts, k)
        for query, ranking in zip(queries, found, strict=True):
            scores = vectors @ query
            assert ranking == [(f"d{i}", scores[i]) for i in np.argsort(-scores, kind="stable")[:k]]
    assert DenseRanker(Numbers(), [], vectors[:0]).rank(texts, 5) == [[]] * 9


def test_dense_vectors_go_on_where_they_were_cut(folders, dense, work, encoded, monkeypatch):
    monkeypatch.setattr(dense_vectors, "FILE_ROWS", 2)
    collection, encoder = load_collection(folders[0]), load_dense_encoder(str(dense))
    first = open_dense(encoder, collection, work).rank(["cold rain"], 3)
    files = sorted(work.folder.glob("*/*.npy"))
    assert [file.name for file in files] == ["000000000.npy", "000000002.npy"]
    encoded.clear()
    files[1].unlink()
    files[0].write_bytes(files[0].read_bytes()[:-1])
    assert open_dense(encoder, collection, work).rank(["cold rain"], 3) == first
    assert encoded == list(WEATHER["docs"].values())[:2]  # batches of one are not recorded
    encoded.clear()
    assert open_dense(encoder, collection, work).rank(["cold rain"], 3) == first
    assert encoded == []


def test_indexes_are_kept_for_the_same_corpus_and_encoder(folders, splade, tmp_path):
    said = []
    work = Workplace(folder=tmp_path / "work", say=said.append)
    for systems in (["bm25=bm25"], ["bm25=bm25", f"sp={splade}"]):
        first = evaluate_suite(folders, parse_systems(systems), work)
    built = [line for line in said if line.startswith("building")]
    assert [line.partition("work/")[2].partition("-")[0] for line in built] == ["weather", "roads"] * 2
    again = evaluate_suite(folders, parse_systems(systems), work)
    assert (again.scores, again.p_values, again.per_query) == (first.scores, first.p_values, first.per_query)
    changed = {**WEATHER, "docs": {**WEATHER["docs"], "d1": "hot sea"}}
    write(tmp_path / "weather", changed)
    said.clear()
    scores = evaluate_suite(folders, parse_systems(["bm25=bm25"]), work).scores
    assert len([line for line in said if line.startswith("building")]) == 1
    assert scores["bm25"]["weather"] == pytest.approx(ndcg(changed, [["d3"], ["d1", "d2"]]))


def test_settings_make_another_encoder(folders, splade, work):
    systems = ["a=bm25", "b=bm25,k1=0.1", f"c={splade}", f"d={splade},document_top_k=2", f"e={splade},kind=slim"]
    found = ranked(systems, folders[0], work)
    assert found["a"] != found["b"]
    assert found["c"] != found["d"]
    assert found["c"] != found["e"]


def report():
    def cost(per_document, documents_per_s, query_ms):
        encoding = Encoding(unit="terms", per_document=per_document, per_query=2, documents_per_s=1000)
        return Cost(encoding=encoding if per_document else None, documents_per_s=documents_per_s, query_ms=query_ms)

    scores = {"a": {"x": 0.5, "y": 0.25}, "b": {"x": 0.75, "y": 0.125}}
    return SuiteReport(
        scores=scores, p_values={"b": {"x": 0.01, "y": 0.04}}, n_queries={"x": 1000, "y": 5}, per_query={},
        costs={"a": {"x": cost(10, 1000, 2), "y": cost(20, 2000, 4)}, "b": {"x": cost(0, 10, 5), "y": cost(0, 10, 5)}},
    )  # fmt: skip


def test_markdown():
    lines = report().to_markdown().splitlines()
    assert lines[:4] == [
        "| system | x | y |",
        "| --- | ---: | ---: |",
        "| a | 0.5000 | 0.2500 |",
        "| b | 0.7500 (+) | 0.1250 (-) |",
    ]
    assert "queries: x 1,000, y 5" in lines[5]
    assert "worse than a" in lines[6]
    assert lines[-2:] == ["| a | terms | 15.0 | 2.0 | 1,500.0 | 3.0 |", "| b |  |  |  | 10.0 | 5.0 |"]


def test_from_the_command_line(folders, splade, tmp_path, capsys):
    arguments = ["eval", "--suite", *folders, "--system", "bm25=bm25", "--system", f"sp={splade}",
                 "--system", "both=fusion:bm25+sp", "--work", str(tmp_path / "work")]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "weather: bm25 " in captured.err
    assert list(found["systems"]) == ["bm25", "sp", "both"]
    assert found["systems"]["sp"]["scores"].keys() == {"weather", "roads", "mean"}
    assert found["systems"]["sp"]["costs"]["roads"]["encoding"]["unit"] == "terms"
    assert found["systems"]["both"]["costs"]["roads"]["encoding"] is None
    assert found["systems"]["bm25"]["p_values"] == {}
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("| system | weather | roads | mean |\n")
    assert main(["eval", "--suite", folders[0], *arguments[4:]]) == 0
    assert capsys.readouterr().out.startswith("| system | weather |\n")


def test_collections_that_make_no_sense(folders, work, tmp_path):
    systems = parse_systems(["b=bm25"])
    with pytest.raises(DatasetError, match="no such folder"):
        evaluate_suite([*folders, str(tmp_path / "none")], systems, work)
    with pytest.raises(ValueError, match="names of their own"):
        evaluate_suite([folders[0], folders[0]], systems, work)
    (tmp_path / "roads" / "corpus.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"no corpus\.jsonl"):
        evaluate_suite(folders, systems, work)
    assert not (tmp_path / "work").exists()  # all is looked at before anything is built


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DATASET and --index IDX, or --suite"),
        (["x"], "DATASET and --index IDX, or --suite"),
        (["--suite", "x", "--system", "b=bm25"], "--suite needs --work"),
        (["x", "--index", "i", "--suite", "x"], "does not go with dataset, index"),
        (["--suite", "x", "--work", "w"], "nothing to compare"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message, capsys):
    assert main(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_scores_above_zero_are_what_the_oracle_counts(splade):
    """The oracle of these tests leaves out nothing that the engine finds: random networks give every pair a score."""
    rankings = by_vectors(load_encoder(model=str(splade)), WEATHER)
    assert [len(ranking) for ranking in rankings] == [3, 3]
    assert np.all([set(ranking) == set(WEATHER["docs"]) for ranking in rankings])
