"""Several systems on several collections; networks are tiny and random."""

import json

import numpy as np
import pytest
from models import VOCABULARY, masked_lm, raw, tokenizer

from lexmax.__main__ import main
from lexmax.eval.datasets import Dataset
from lexmax.eval.measures import evaluate
from lexmax.eval.suite import SuiteReport, evaluate_suite
from lexmax.eval.systems import Encoding, System, load_encoders, parse_systems, rank_all
from lexmax.index.errors import DatasetError, RepresentationError
from lexmax.retrieval.encoders.registry import load_encoder
from lexmax.retrieval.fusion import reciprocal_rank_fusion
from lexmax.retrieval.training.models.colbert import ColbertStudent, ColbertStudentConfig

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
            if encoder.kind == "colbert":
                scores[doc_id] = float((encoded.row(q) @ documents.row(d).T).max(1).sum())
            else:
                weights = dict(zip(*(part.tolist() for part in documents.row(d)), strict=True))
                scores[doc_id] = sum(w * weights.get(t, 0) for t, w in zip(*encoded.row(q), strict=True))
        rankings.append(sorted((d for d in scores if scores[d] and d != query_id), key=lambda d: -scores[d]))
    return rankings


def test_every_cell_is_what_vectors_say(folders, splade, colbert, tmp_path):
    systems = parse_systems(["bm25=bm25", f"sp={splade}", f"cb={colbert}", "rr=rerank:bm25>cb", "rr2=rerank:sp>cb"])
    report = evaluate_suite(folders, systems, tmp_path / "work")
    for model, name in ((splade, "sp"), (colbert, "cb")):
        encoder = load_encoder(model=str(model))
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
    assert report.p_values.keys() == {"sp", "cb", "rr", "rr2"}


def test_what_encoders_make_of_texts(folders, splade, colbert, tmp_path):
    systems = parse_systems(["bm25=bm25", f"sp={splade}", f"cb={colbert}"])
    encodings = evaluate_suite(folders[:1], systems, tmp_path / "work").encodings
    for name, model, unit, count in (("sp", splade, "terms", "n_postings"), ("cb", colbert, "tokens", "n_tokens")):
        encoder, found = load_encoder(model=str(model)), encodings[name]["weather"]
        assert found.unit == unit
        documents, queries = (list(WEATHER[key].values()) for key in ("docs", "queries"))
        assert found.per_document == pytest.approx(getattr(encoder.encode_documents(documents), count) / 3, abs=0.01)
        assert found.per_query == getattr(encoder.encode_queries(queries), count) / 2
        assert min(found.documents_per_s, found.queries_per_s) > 0
    assert encodings["bm25"]["weather"].per_query == 2


class Table:
    """A retriever whose rankings are given by query."""

    def __init__(self, rankings):
        self.rankings, self.asked = rankings, []

    def rank(self, texts, k):
        self.asked.append(len(texts))
        return [self.rankings[text][:k] for text in texts]

    def rerank(self, texts, rankings, k):
        return [sorted(ranking, reverse=True)[:k] for ranking in rankings]


def test_rankings_are_fused_and_reranked_without_the_query_itself():
    dataset = Dataset(name="x", queries={"q": "one", "b": "two"}, qrels={"q": {"a": 1}, "b": {"a": 1}})
    first = Table({"one": [("a", 3.0), ("b", 2.0)], "two": [("b", 3.0), ("a", 1.0), ("c", 0.5)]})
    second = Table({"one": [("c", 3.0)], "two": [("c", 3.0), ("b", 1.0)]})
    systems = parse_systems(["x=m1", "y=m2", "f=fusion:x+y", "r=rerank:f>y", "g=fusion:r+x+y"])
    rankings = rank_all(systems, {"x": first, "y": second}, dataset)
    assert rankings["x"] == [[("a", 3.0), ("b", 2.0)], [("a", 1.0), ("c", 0.5)]]
    assert rankings["y"] == [[("c", 3.0)], [("c", 3.0)]]
    assert rankings["f"] == [reciprocal_rank_fusion([x, y], 10) for x, y in zip(rankings["x"], rankings["y"], strict=True)]
    assert [[d for d, _ in ranking] for ranking in rankings["r"]] == [["c", "b", "a"], ["c", "a"]]
    assert rankings["g"][1] == reciprocal_rank_fusion([rankings["r"][1], rankings["x"][1], rankings["y"][1]], 10)


def test_queries_are_asked_in_batches():
    dataset = Dataset(name="x", queries={f"q{i}": "one" for i in range(600)}, qrels={f"q{i}": {"a": 1} for i in range(600)})
    table = Table({"one": [("a", 1.0)]})
    assert rank_all(parse_systems(["x=bm25"]), {"x": table}, dataset)["x"] == [[("a", 1.0)]] * 600
    assert table.asked == [256, 256, 88]


def test_indexes_are_kept_for_the_same_corpus_and_encoder(folders, splade, tmp_path):
    said = []
    for systems in (["bm25=bm25"], ["bm25=bm25", f"sp={splade}"]):
        first = evaluate_suite(folders, parse_systems(systems), tmp_path / "work", say=said.append)
    built = [line for line in said if line.startswith("building")]
    assert [line.partition("work/")[2].partition("-")[0] for line in built] == ["weather", "roads"] * 2
    again = evaluate_suite(folders, parse_systems(systems), tmp_path / "work")
    assert (again.scores, again.p_values, again.per_query) == (first.scores, first.p_values, first.per_query)
    changed = {**WEATHER, "docs": {**WEATHER["docs"], "d1": "hot sea"}}
    write(tmp_path / "weather", changed)
    said.clear()
    scores = evaluate_suite(folders, parse_systems(["bm25=bm25"]), tmp_path / "work", say=said.append).scores
    assert len([line for line in said if line.startswith("building")]) == 1
    assert scores["bm25"]["weather"] == pytest.approx(ndcg(changed, [["d3"], ["d1", "d2"]]))


def report():
    encoding = Encoding(unit="terms", per_document=10, per_query=2, documents_per_s=1000, queries_per_s=50)
    scores = {"a": {"x": 0.5, "y": 0.25}, "b": {"x": 0.75, "y": 0.125}}
    return SuiteReport(
        scores=scores, p_values={"b": {"x": 0.01, "y": 0.04}}, n_queries={"x": 1000, "y": 5}, per_query={},
        encodings={"a": {"x": encoding, "y": Encoding(**{**vars(encoding), "per_document": 20})}},
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
    assert lines[-1] == "| a | terms | 15.0 | 2.0 | 1,000.0 | 50.0 |"


def test_from_the_command_line(folders, splade, tmp_path, capsys):
    arguments = ["eval", "--suite", *folders, "--system", "bm25=bm25", "--system", f"sp={splade}",
                 "--system", "both=fusion:bm25+sp", "--work", str(tmp_path / "work")]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "weather: bm25 " in captured.err
    assert list(found["systems"]) == ["bm25", "sp", "both"]
    assert found["systems"]["sp"]["scores"].keys() == {"weather", "roads", "mean"}
    assert found["systems"]["sp"]["encoding"]["roads"]["unit"] == "terms"
    assert found["systems"]["bm25"]["p_values"] == {}
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("| system | weather | roads | mean |\n")
    assert main(["eval", "--suite", folders[0], *arguments[4:]]) == 0
    assert capsys.readouterr().out.startswith("| system | weather |\n")


def test_systems_are_read():
    assert parse_systems(["b=bm25", "s=a/model=x", "r=rerank:b>s", "f=fusion:b+r"]) == [
        System(name="b", kind="encoder"),
        System(name="s", kind="encoder", model="a/model=x"),
        System(name="r", kind="rerank", parts=("b", "s")),
        System(name="f", kind="fusion", parts=("b", "r")),
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "nothing to compare"),
        (["bm25"], "NAME=SPEC"),
        (["a b=bm25"], "NAME=SPEC"),
        (["a|b=bm25"], "NAME=SPEC"),
        (["a="], "NAME=SPEC"),
        (["a=bm25", "a=x"], "two systems are called 'a'"),
        (["f=fusion:a+b", "a=bm25"], "'a' is no system before it; there are none"),
        (["a=bm25", "f=fusion:a"], "fusion:A"),
        (["a=bm25", "r=rerank:a"], "rerank:FIRST>SECOND"),
        (["a=bm25", "f=fusion:a+a", "r=rerank:a>f"], "'f' has no vectors"),
    ],
)
def test_systems_that_make_no_sense(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_systems(texts)


def test_sparse_vectors_do_not_rerank():
    with pytest.raises(RepresentationError, match="r: b makes no token vectors"):
        load_encoders(parse_systems(["b=bm25", "r=rerank:b>b"]))


def test_collections_that_make_no_sense(folders, tmp_path):
    systems = parse_systems(["b=bm25"])
    with pytest.raises(DatasetError, match="no such folder"):
        evaluate_suite([*folders, str(tmp_path / "none")], systems, tmp_path / "work")
    with pytest.raises(ValueError, match="names of their own"):
        evaluate_suite([folders[0], folders[0]], systems, tmp_path / "work")
    (tmp_path / "roads" / "corpus.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"no corpus\.jsonl"):
        evaluate_suite(folders, systems, tmp_path / "work")
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
