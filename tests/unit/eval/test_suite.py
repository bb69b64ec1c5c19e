"""Several systems on several collections; networks are tiny and random."""

import json

import numpy as np
import pytest
from models import VOCABULARY, masked_lm, raw, tokenizer, write_json

from lexmax.__main__ import main
from lexmax.eval.measures import evaluate
from lexmax.eval.suite.comparison import SuiteReport, evaluate_suite
from lexmax.eval.suite.corpora import Workplace, load_collection
from lexmax.eval.suite.ranking import Costs, FieldCost, run_systems
from lexmax.eval.suite.systems import load_fields, parse_searches
from lexmax.index.errors import DatasetError, EncoderMismatchError
from lexmax.retrieval.encoders.registry import load_encoder
from lexmax.retrieval.retriever import Retriever
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig

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
                scores[doc_id] = float(encoded.row(q) @ documents.row(d))
            elif encoder.kind == "colbert":
                scores[doc_id] = float((encoded.row(q) @ documents.row(d).T).max(1).sum())
            else:
                weights = dict(zip(*(part.tolist() for part in documents.row(d)), strict=True))
                scores[doc_id] = sum(w * weights.get(t, 0) for t, w in zip(*encoded.row(q), strict=True))
        rankings.append(sorted((d for d in scores if scores[d] and d != query_id), key=lambda d: -scores[d]))
    return rankings


def compared(searches, specs, folders, work):
    """Evaluate searches over the fields of specs."""
    fields = load_fields(specs)
    return evaluate_suite(folders, parse_searches(searches, list(fields)), fields, work)


def test_every_cell_is_what_vectors_say(folders, splade, dense, colbert, work):
    specs = ["bm25", f"sp={splade}", f"cb={colbert}", f"dn={dense}"]
    report = compared(["bm25", "sp", "cb", "dn", "rr=sp > cb"], specs, folders, work)
    encoders = {name: load_encoder(model=str(folder)) for name, folder in (("sp", splade), ("cb", colbert), ("dn", dense))}
    for name, encoder in encoders.items():
        for place, content in (("weather", WEATHER), ("roads", ROADS)):
            assert report.scores[name][place] == pytest.approx(ndcg(content, by_vectors(encoder, content)))
    assert report.scores["rr"]["weather"] == report.scores["cb"]["weather"]  # all documents are candidates
    assert report.n_queries == {"weather": 2, "roads": 2}
    assert set(report.p_values) == {"sp", "cb", "dn", "rr"}


def test_what_is_evaluated_is_what_is_served(folders, splade, colbert, work):
    specs, expression = ["bm25", f"sp={splade}", f"cb={colbert}"], "(bm25 + sp) > 0.3*bm25 + 0.7*cb"
    fields, collection = load_fields(specs), load_collection(folders[0])
    systems = parse_searches([f"best={expression}", "bm25", "sp"], list(fields))
    rankings, _ = run_systems(systems, fields, collection, work)
    (path,) = work.folder.glob("weather-*")
    with Retriever.open(path, search=expression) as retriever:
        for ranking, text in zip(rankings["best"], WEATHER["queries"].values(), strict=True):
            served = retriever.search(text, k=100)
            assert [(hit.doc_id, hit.score) for hit in served] == ranking


def test_what_systems_cost(folders, splade, dense, colbert, work):
    fields, collection = load_fields(["bm25", f"cb={colbert}", f"dn={dense}"]), load_collection(folders[0])
    systems = parse_searches(["bm25", "bm25 > cb", "dn"], list(fields))
    _, costs = run_systems(systems, fields, collection, work)
    assert {name: cost.unit for name, cost in costs.fields.items()} == {"bm25": "terms", "cb": "tokens", "dn": "numbers"}
    assert costs.fields["cb"].per_query == 12
    assert costs.fields["dn"].per_query == costs.fields["dn"].per_document == fields["dn"].encoder.dim
    assert costs.documents_per_s > 0
    assert set(costs.query_ms) == {"bm25", "bm25 > cb", "dn"}
    assert all(ms > 0 for ms in costs.query_ms.values())


def test_the_query_itself_is_left_out(folders, work):
    fields = load_fields(["bm25"])
    rankings, _ = run_systems(parse_searches(["bm25"], ["bm25"]), fields, load_collection(folders[1]), work)
    assert "a" not in [doc_id for doc_id, _ in rankings["bm25"][1]]


def test_indexes_are_kept_and_get_the_fields_that_they_lack(folders, splade, tmp_path):
    said = []
    work = Workplace(folder=tmp_path / "work", say=said.append)
    compared(["bm25"], ["bm25"], folders, work)
    first = compared(["bm25", "sp"], ["bm25", f"sp={splade}"], folders, work)
    done = [line.split()[0] for line in said if line.startswith(("building", "adding"))]
    assert done == ["building", "building", "adding", "adding"]
    said.clear()
    again = compared(["bm25", "sp"], ["bm25", f"sp={splade}"], folders, work)
    assert (again.scores, again.p_values, again.per_query) == (first.scores, first.p_values, first.per_query)
    assert not [line for line in said if line.startswith(("building", "adding"))]
    with pytest.raises(EncoderMismatchError):
        compared(["bm25"], ["bm25,k1=0.5"], folders, work)
    changed = {**WEATHER, "docs": {**WEATHER["docs"], "d1": "hot sea"}}
    write(tmp_path / "weather", changed)
    scores = compared(["bm25"], ["bm25"], folders, work).scores
    assert len([line for line in said if line.startswith("building")]) == 1
    assert scores["bm25"]["weather"] == pytest.approx(ndcg(changed, [["d3"], ["d1", "d2"]]))


def test_a_build_that_was_cut_continues(folders, colbert, tmp_path, monkeypatch):
    work = Workplace(folder=tmp_path / "work")
    expected = compared(["bm25 > cb"], ["bm25", f"cb={colbert}"], folders, Workplace(folder=tmp_path / "other")).scores
    monkeypatch.setattr("lexmax.retrieval.build.COMMIT_EVERY_S", 0)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lexmax.index.collection.Collection.compact", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compared(["bm25 > cb"], ["bm25", f"cb={colbert}"], folders, work)
    assert compared(["bm25 > cb"], ["bm25", f"cb={colbert}"], folders, work).scores == expected


def report():
    def costs(per_document, documents_per_s, query_ms):
        field = FieldCost(unit="terms", per_document=per_document, per_query=2)
        return Costs(documents_per_s=documents_per_s, fields={"f": field}, query_ms=query_ms)

    scores = {"a": {"x": 0.5, "y": 0.25}, "b": {"x": 0.75, "y": 0.125}}
    return SuiteReport(
        scores=scores, p_values={"b": {"x": 0.01, "y": 0.04}}, n_queries={"x": 1000, "y": 5}, per_query={},
        costs={"x": costs(10, 1000, {"a": 2, "b": 5}), "y": costs(20, 2000, {"a": 4, "b": 5})},
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
    assert lines[-7:] == [
        "| b | 5.0 |", "", "| field | unit | per document | per query |", "| --- | ---: | ---: | ---: |",
        "| f | terms | 15.0 | 2.0 |", "", "All fields are encoded in one pass: 1,500.0 documents/s.",
    ]  # fmt: skip


def test_from_the_command_line(folders, splade, tmp_path, capsys):
    arguments = ["eval", "--suite", *folders, "--encoder", "bm25", "--encoder", f"sp={splade}", "--search", "bm25",
                 "--search", "sp", "--search", "both=bm25 + sp", "--work", str(tmp_path / "work")]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "weather: bm25 " in captured.err
    assert list(found["systems"]) == ["bm25", "sp", "both"]
    assert found["systems"]["sp"]["scores"].keys() == {"weather", "roads", "mean"}
    assert found["costs"]["roads"]["fields"]["sp"]["unit"] == "terms"
    assert found["systems"]["bm25"]["p_values"] == {}
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("| system | weather | roads | mean |\n")
    assert main(["eval", "--suite", folders[0], *arguments[4:]]) == 0
    assert capsys.readouterr().out.startswith("| system | weather |\n")


def test_collections_that_make_no_sense(folders, work, tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        compared(["bm25"], ["bm25"], [*folders, str(tmp_path / "none")], work)
    with pytest.raises(ValueError, match="names of their own"):
        compared(["bm25"], ["bm25"], [folders[0], folders[0]], work)
    (tmp_path / "roads" / "corpus.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"no corpus\.jsonl"):
        compared(["bm25"], ["bm25"], folders, work)
    assert not (tmp_path / "work").exists()  # all is looked at before anything is built


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DATASET and --index IDX, or --suite"),
        (["x"], "DATASET and --index IDX, or --suite"),
        (["--suite", "x", "--encoder", "bm25", "--search", "bm25"], "--suite needs --work"),
        (["x", "--index", "i", "--suite", "x"], "does not go with dataset, index"),
        (["SUITE", "--work", "w"], "nothing to compare"),
        (["SUITE", "--work", "w", "--encoder", "bm25", "--search", "b=bm25 +"], "search expression"),
        (["SUITE", "--work", "w", "--encoder", "bm25", "--search", "splade"], "names 'splade'"),
        (["SUITE", "--work", "w", "--encoder", "bm25", "--search", "bm25", "--search", "bm25"], "two systems are called"),
        (["SUITE", "--work", "w", "--encoder", "bm25", "--encoder", "b=bm25", "--search", "bm25"], "no search uses"),
        (["x", "--index", "i", "--encoder", "bm25"], "go with --suite"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message, capsys, folders):
    arguments = [each for a in arguments for each in (["--suite", folders[0]] if a == "SUITE" else [a])]
    assert main(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_scores_above_zero_are_what_the_oracle_counts(splade):
    """The oracle of these tests leaves out nothing that the engine finds: random networks give every pair a score."""
    rankings = by_vectors(load_encoder(model=str(splade)), WEATHER)
    assert [len(ranking) for ranking in rankings] == [3, 3]
    assert np.all([set(ranking) == set(WEATHER["docs"]) for ranking in rankings])
