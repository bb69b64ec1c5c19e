"""The command line as a user types it."""

import gzip
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from unit.encoders import colbert_models

from lexmax import CalibrationWarning
from lexmax.__main__ import _plain_warnings, main

SCIFACT = Path(__file__).parents[2] / "eval" / "collections" / "scifact"
RECORDS = [
    {"_id": "a", "title": "Cats", "text": "cats purr", "year": 2001},
    {"_id": "b", "title": "Dogs", "text": "dogs bark at cats", "year": 2010},
    {"_id": "c", "text": "birds sing", "year": 2020},
]


@pytest.fixture
def idx(tmp_path, capsys):
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    assert main(["build", "--encoder", "bm25", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "idx")]) == 0
    assert "3 documents" in capsys.readouterr().err
    return str(tmp_path / "idx")


def out(capsys):
    return capsys.readouterr().out


def test_search_prints_a_table_or_json(idx, capsys):
    assert main(["search", idx, "cats", "-k", "1"]) == 0
    assert re.match(r"  1\. +0\.\d{4}  a  Cats\n     cats purr\n$", out(capsys))
    assert main(["search", idx, "cats", "--json"]) == 0
    rows = [json.loads(line) for line in out(capsys).splitlines()]
    assert [row["doc_id"] for row in rows] == ["a", "b"]
    assert rows[0]["metadata"] == {"year": 2001}
    assert main(["search", idx, "cats", "--filter", "year > 2005", "--json"]) == 0
    assert json.loads(out(capsys))["doc_id"] == "b"


def test_explain_shows_parts_that_sum_to_the_score(idx, capsys):
    main(["search", idx, "cats bark", "--explain", "--json"])
    for line in out(capsys).splitlines():
        row = json.loads(line)
        (stage,) = row["explanation"]["stages"]
        (field,) = stage["fields"]
        assert sum(term["score"] for term in field["terms"]) == pytest.approx(row["score"])
    main(["search", idx, "cats bark", "--explain"])
    assert re.search(r"\d\.\d+  = \d\.\d+ x \d\.\d+  bark", out(capsys))


def test_a_query_may_follow_the_options(idx, capsys):
    assert main(["search", idx, "-k", "1", "cats"]) == 0
    assert "Cats" in out(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cats", "-k", "0"], "k must be at least 1, not 0"),
        (["cats", "-k", "-1"], "k must be at least 1, not -1"),
        ([""], "the QUERY is empty"),
        (["  "], "the QUERY is empty"),
        (["cats", "--search", ""], "search expression '', character 1: expected a field"),
        (["cats", "--search", "bm25 ++ bm25"], "search expression 'bm25 ++ bm25', character 7: expected a field or ("),
        (["cats", "--search", "bm25 > bm25 >"], "character 14: expected a field"),
        (["cats", "--search", "bm52"], "adds one); did you mean 'bm25'?"),
        (["cats", "--option", "bm25.alpah=1"], "unknown option 'alpah': there are algorithm, alpha; did you mean 'alpha'?"),
        (["cats", "--option", "bm25.alpha=low"], "option alpha is 'low': it must be a number"),
        (["cats", "--option", "bm52.alpha=1"], "options for the field 'bm52'; the fields are bm25; did you mean 'bm25'?"),
        (["cats", "--option", "bm25.alpha=1", "bm25.alpha=.5"], "--option gives bm25.alpha twice"),
        (["cats", "--option", "alpha=1"], "--option takes FIELD.NAME=VALUE"),
        (["cats", "--model", "bm25"], "--model takes NAME=VALUE"),
        (["cats", "--model", "bm25=a", "--model", "bm25=b"], "--model gives bm25 twice"),
        (["cats", "--target-recall", "0.9"], "--target-recall is for fields of token vectors; the search has bm25"),
    ],
)
def test_wrong_searches_end_in_one_line(idx, capsys, arguments, message):
    assert main(["search", idx, *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bm25,k1=abc", "bm25: k1 takes a number, not 'abc'"),
        ("bm25,kk=1", "bm25 has no setting 'kk': there are b, "),
        ("bm25,stemer=german", "tokenizer; did you mean 'stemmer'?"),
        ("bm25,k1", "a setting of 'bm25' takes NAME=VALUE, not 'k1'"),
        ("bm25,k1=1,k1=2", "k1 is given twice"),
        ("bm25,nbits=2", "encoder bm25 makes sparse vectors: nbits is for tokens vectors"),
        ("bm26", "cannot find the model 'bm26'; did you mean 'bm25'?"),
        ("lexmax-colbart", "did you mean 'lexmax-colbert'?"),
    ],
)
def test_wrong_encoders_end_in_one_line_before_anything_is_made(tmp_path, capsys, spec, message):
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "cats"}\n')
    assert main(["build", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "new"), "--encoder", spec]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if message in line] == lines[-1:]
    assert not (tmp_path / "new").exists()


def test_get_and_list(idx, capsys):
    assert main(["get", idx, "c", "a"]) == 0
    rows = [json.loads(line) for line in out(capsys).splitlines()]
    assert [(row["doc_id"], row["metadata"]["year"]) for row in rows] == [("c", 2020), ("a", 2001)]
    assert main(["get", idx, "zzz"]) == 1
    assert "not in the index: zzz" in capsys.readouterr().err
    assert main(["list", idx]) == 0
    assert out(capsys).split() == ["a", "b", "c"]
    assert main(["list", idx, "--filter", "year > 2005", "--json"]) == 0
    assert [json.loads(line)["doc_id"] for line in out(capsys).splitlines()] == ["b", "c"]


def test_many_queries_make_a_run(idx, tmp_path, capsys):
    queries, run = tmp_path / "q.tsv", tmp_path / "run.trec"
    queries.write_text("q1\tcats\nq2\tbirds sing\n")
    assert main(["search", idx, "--queries", str(queries), "--run-out", str(run)]) == 0
    lines = [line.split() for line in run.read_text().splitlines()]
    assert [(line[0], line[2], line[3]) for line in lines] == [("q1", "a", "1"), ("q1", "b", "2"), ("q2", "c", "1")]
    assert main(["search", idx, "--queries", str(queries)]) == 0
    assert json.loads(out(capsys).splitlines()[1])["results"][0]["doc_id"] == "c"


def test_a_field_is_added_searched_and_dropped(idx, capsys):
    assert main(["field", "add", idx, "english=bm25,b=0.5", "--search", "bm25 + english"]) == 0
    assert main(["search", idx, "cats", "--explain", "--timings"]) == 0
    printed = capsys.readouterr()
    assert "bm25 + english: rank 1" in printed.out
    assert " ms" in printed.err
    assert main(["field", "drop", idx, "english"]) == 2
    assert main(["field", "default", idx, "--search", "bm25"]) == 0
    assert main(["field", "drop", idx, "english"]) == 0
    assert main(["check", idx]) == 0


def test_nothing_found_is_one(idx, capsys):
    assert main(["search", idx, "zebra"]) == 1
    assert capsys.readouterr() == ("", "nothing found\n")


def test_add_delete_compact_info_check(idx, tmp_path, capsys):
    (tmp_path / "more.tsv").write_text("d\tmore cats\n")
    assert main(["add", idx, str(tmp_path / "more.tsv")]) == 0
    assert main(["add", idx, str(tmp_path / "more.tsv")]) == 2
    assert "already in the index: 'd'" in capsys.readouterr().err
    assert main(["add", idx, str(tmp_path / "more.tsv"), "--replace"]) == 0
    assert "1 replaced" in capsys.readouterr().err
    assert main(["delete", idx, "a", "nope"]) == 1
    assert "not in the index: nope" in capsys.readouterr().err
    main(["info", idx, "--json"])
    info = json.loads(out(capsys))
    assert (info["n_docs"], info["n_deleted"], len(info["segments"])) == (3, 2, 3)
    assert info["segments"][0]["fields"]["bm25"]["quantisation_error"]["relative"] < 0.01
    assert main(["compact", idx]) == 0
    main(["info", idx])
    assert re.search(r"n_deleted +0\n", out(capsys))
    assert main(["check", idx]) == 0
    file = next(Path(idx).rglob("inverted.lex"))
    content = bytearray(file.read_bytes())
    content[-300] ^= 1
    file.write_bytes(content)
    capsys.readouterr()
    assert main(["check", idx]) == 1
    assert "inverted.lex" in out(capsys)
    assert main(["search", idx, "cats"]) == 2
    assert "damaged" in capsys.readouterr().err


def test_standard_input_gzip_and_chosen_fields(tmp_path):
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write('{"key": "x", "head": "Heading", "body": "some body", "n": 1, "m": 2}\n')
    fields = ["--id-field", "key", "--title-field", "head", "--text-field", "body", "--metadata-field", "n"]
    assert main(["build", "--encoder", "bm25", str(tmp_path / "c.jsonl.gz"), "--out", str(tmp_path / "i"), *fields]) == 0
    got = subprocess.run(
        [sys.executable, "-m", "lexmax", "search", str(tmp_path / "i"), "heading", "--json"],
        check=True,
        capture_output=True,
    )
    row = json.loads(got.stdout)
    assert (row["title"], row["text"], row["metadata"]) == ("Heading", "some body", {"n": 1})
    line = b'{"_id": "1", "text": "from a pipe"}\n'
    subprocess.run(
        [sys.executable, "-m", "lexmax", "build", "--encoder", "bm25", "-", "--out", str(tmp_path / "j")],
        input=line,
        check=True,
        capture_output=True,
    )
    assert main(["search", str(tmp_path / "j"), "pipe"]) == 0


def test_bad_records_are_an_error_or_a_list(tmp_path, capsys):
    path = tmp_path / "c.jsonl"
    path.write_text('{"_id": "a", "text": "x"}\n{"_id": \n{"_id": "a", "text": "again"}\n')
    assert main(["build", "--encoder", "bm25", str(path), "--out", str(tmp_path / "i")]) == 2
    assert "c.jsonl, line 2" in capsys.readouterr().err
    assert main(["build", "--encoder", "bm25", str(path), "--out", str(tmp_path / "i"), "--skip-bad"]) == 0
    err = capsys.readouterr().err
    assert "skipped 2 bad records" in err
    assert "line 2" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "{tmp}/none", "x"], "lexmax build CORPUS --out"),
        (["build", "--encoder", "bm25", "{tmp}/none.jsonl", "--out", "{tmp}/i"], "none.jsonl"),
        (["build", "--encoder", "bm25", "{idx}/manifest.json", "--out", "{idx}"], "index already"),
        (["search", "{idx}", "x", "--filter", "yeer == 1"], "did you mean 'year'?"),
        (["search", "{idx}", "x", "-k", "0"], "k must be at least 1"),
        (["build", "x.jsonl", "--out", "i", "--encoder", "bm25,k1"], "NAME=VALUE"),
        (["build", "x.jsonl", "--out", "i", "--encoder", "bm25,k1=abc"], "k1"),
        (["build", "x.jsonl", "--out", "i", "--encoder", "bm25,kk=1"], "kk"),
        (["search", "{idx}", "x", "--search", "bm25 + splade"], "'splade'"),
        (["search", "{idx}", "x", "--search", "bm25 +"], "bm25 +"),
        (["search", "{idx}", "x", "--option", "bm25.n_probe=3"], "n_probe"),
        (["search", "{idx}", "x", "--option", "n_probe=3"], "FIELD.NAME=VALUE"),
        (["field", "drop", "{idx}", "bm25"], "only field"),
        (["field", "add", "{idx}", "bm25,b=0.1"], "already"),
        (["eval", "{tmp}", "--index", "{idx}"], "{tmp}"),
    ],
)
def test_errors_say_what_where_and_what_to_do(idx, tmp_path, capsys, arguments, message):
    def fill(text):
        return text.replace("{idx}", idx).replace("{tmp}", str(tmp_path))

    assert main([fill(argument) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert fill(message) in err
    assert "Traceback" not in err


COMMANDS = """
    build add delete field import export search get list calibrate audit feedback info check shards compact warm serve
    keys mcp eval train mine score augment pack push pull
"""


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"example:\n  lexmax {command} " in out(capsys)


def test_help_lists_the_commands_in_the_order_of_their_use(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.findall(r"^    ([a-z]+)\b", out(capsys), re.MULTILINE) == [*COMMANDS.split(), "bench"]


@pytest.mark.parametrize(
    ("arguments", "interrupted_in", "note"),
    [
        (
            "build c.jsonl --out i --encoder bm25",
            "lexmax.retrieval.build.build_index",
            "; run the same command again to continue",
        ),
        (
            "train splade --model m --data d.jsonl --out r",
            "lexmax.retrieval.training.data.TrainingSet",
            "; run the same command again to continue",
        ),
        (
            "score d.jsonl --out s.jsonl --cross-encoder m",
            "lexmax.retrieval.encoders.loader.resolve_model",
            "; run the same command again to continue",
        ),
        ("add made c.jsonl", "lexmax.index.collection.Collection.open", ""),
        ("search made cats", "lexmax.retrieval.retriever.Retriever.open", ""),
    ],
)
def test_interrupted_commands_say_when_they_can_go_on(tmp_path, monkeypatch, capsys, arguments, interrupted_in, note):
    monkeypatch.chdir(tmp_path)
    if "made" in arguments:
        Path("c.jsonl").write_text(json.dumps(RECORDS[0]))
        assert main(["build", "c.jsonl", "--out", "made", "--encoder", "bm25"]) == 0

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupted_in, interrupt)
    assert main(arguments.split()) == 130
    assert capsys.readouterr().err.endswith(f"lexmax: interrupted{note}\n")


def test_import_takes_the_documents_that_have_vectors_and_no_others(tmp_path, capsys):
    corpus, vectors, index = str(tmp_path / "c.jsonl"), tmp_path / "v.jsonl", str(tmp_path / "i")
    Path(corpus).write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    command = ["import", str(vectors), "--out", index, "--documents", corpus]
    assert main(command) == 2
    assert "v.jsonl" in capsys.readouterr().err
    vectors.write_text('{"id": "b", "vector": {"dog": 2, "cat": 1}}\n{"id": "a", "vector": {"cat": 2}}\n')
    assert main(command) == 0
    assert "2 documents" in capsys.readouterr().err
    assert main(["search", index, "--vector", '{"cat": 1, "bird": 1}', "--json"]) == 0
    rows = [json.loads(line) for line in out(capsys).splitlines()]
    assert [(row["doc_id"], row["title"], row["metadata"]) for row in rows] == [
        ("a", "Cats", {"year": 2001}), ("b", "Dogs", {"year": 2010}),
    ]  # fmt: skip
    assert main(["search", index, "--vector", '{"bird": 1}']) == 1
    assert main(["check", index]) == 0


@pytest.fixture
def colbert(tmp_path_factory, capsys):
    folder = colbert_models.stanford(tmp_path_factory.mktemp("models") / "colbert")
    capsys.readouterr()  # what writing a checkpoint says
    return str(folder)


@pytest.fixture
def token_corpus(tmp_path):
    texts = [text for text in colbert_models.TEXTS if text]
    path = tmp_path / "tokens.jsonl"
    path.write_text("".join(json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return str(path)


def found(capsys, *arguments):
    """What a search prints as JSON."""
    assert main(["search", *arguments, "--json"]) == 0
    return [json.loads(line) for line in out(capsys).splitlines()]


def facts_of(index, capsys):
    capsys.readouterr()
    assert main(["info", index, "--json"]) == 0
    return json.loads(out(capsys))


def test_token_vectors_are_built_searched_and_calibrated(tmp_path, colbert, token_corpus, capsys):
    index, queries = str(tmp_path / "i"), tmp_path / "q.jsonl"
    assert main(["build", token_corpus, "--out", index, "--encoder", f"colbert={colbert},nbits=4"]) == 0
    err = capsys.readouterr().err
    assert "6 documents in" in err
    assert "1 documents are longer than the encoder of colbert reads" in err
    assert facts_of(index, capsys)["fields"]["colbert"]["calibration"] is None
    rows = found(capsys, index, "sun and snow", "--explain")
    assert sorted(row["doc_id"] for row in rows) == [f"d{i}" for i in range(6)]
    for row in rows:
        tokens = row["explanation"]["stages"][0]["fields"][0]["tokens"]
        assert len(tokens) == 12  # query_maxlen
        assert sum(token["score"] for token in tokens) == pytest.approx(row["score"], abs=0.01)
        start, end = tokens[2]["query_span"]
        assert "sun and snow"[start:end] == tokens[2]["query_token"] == "sun"
    assert main(["search", index, "sun", "--explain", "-k", "1"]) == 0
    assert re.search(r"^ +\d\.\d{4}  sun ~ \S+$", out(capsys), re.MULTILINE)
    assert main(["search", index, "sun", "--option", "colbert.target_recall=0.9"]) == 2
    assert "lexmax calibrate" in capsys.readouterr().err
    queries.write_text('{"_id": "q", "text": "sun and snow"}\n')
    assert main(["calibrate", index, "--queries", str(queries)]) == 0
    assert re.match(r" +recall@10 +\+- +cpu ms  options\n +1\.0000 +0\.0000 +\d+\.\d\d  n_probe=4, ", out(capsys))
    assert main(["calibrate", index, "--json"]) == 0
    assert facts_of(index, capsys)["fields"]["colbert"]["calibration"]["efforts"][0]["options"]["n_probe"] == 4
    expected = [(row["doc_id"], row["score"]) for row in rows]
    assert [
        (row["doc_id"], row["score"]) for row in found(capsys, index, "sun and snow", "--option", "colbert.target_recall=0.9")
    ] == expected
    everything = {row["doc_id"]: row["score"] for row in found(capsys, index, "sun and snow", "--exhaustive")}
    assert everything == pytest.approx(dict(expected), abs=0.01)
    facts = facts_of(index, capsys)
    assert facts["fields"]["colbert"]["token_vectors"]["nbits"] == 4
    n_tokens = sum(segment["fields"]["colbert"]["n_tokens"] for segment in facts["segments"])
    assert facts["fields"]["colbert"]["n_tokens"] == n_tokens > 0
    assert main(["info", index]) == 0
    assert re.search(r"6 documents, 0 deleted\n  colbert +\d+ tokens, residual 0\.\d+ \(drift ", out(capsys))


def test_the_model_that_an_index_names_is_told_and_held_to_its_weights(tmp_path, colbert, token_corpus, capsys):
    import torch
    from safetensors.torch import load_file, save_file

    index, moved = str(tmp_path / "i"), tmp_path / "moved"
    assert main(["build", token_corpus, "--out", index, "--encoder", f"colbert={colbert},nbits=4"]) == 0
    told = f"the index names the model of colbert: {colbert} (--model colbert=DIR_OR_ID takes another place)"
    capsys.readouterr()
    assert main(["search", index, "sun"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == told
    assert main(["info", index]) == 0
    assert colbert in out(capsys)
    shutil.copytree(colbert, moved)
    (weights,) = [path for path in moved.rglob("*.safetensors") if "Dense" not in str(path)]
    assert main(["search", index, "sun", "--model", f"colbert={moved}"]) == 0
    assert told not in capsys.readouterr().err
    tensors = load_file(weights)
    name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.float32)
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    assert main(["search", index, "sun", "--model", f"colbert={moved}"]) == 2
    err = capsys.readouterr().err
    assert len(re.findall(r"colbert:[0-9a-f]{16}", err)) == 2
    assert f"the model at {moved} is another, or its files have changed" in err
    assert err.count("\n") == 1


def test_eval_warns_of_an_index_of_another_collection(tmp_path, idx, capsys):
    pytest.importorskip("ranx")
    (tmp_path / "data" / "qrels").mkdir(parents=True)
    queries = [{"_id": "1", "text": "cats"}, {"_id": "2", "text": "dogs"}, {"_id": "3", "text": "birds"}]
    (tmp_path / "data" / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (tmp_path / "data" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\tother\t1\n2\telse\t1\n")
    assert main(["eval", str(tmp_path / "data"), "--index", idx, "--json"]) == 0
    captured = capsys.readouterr()
    assert "1 queries have no relevant document in data/test and are left out\n" in captured.err
    assert "lexmax: warning: none of the 2 documents judged relevant in data/test is in the index" in captured.err
    assert json.loads(captured.out)["warning"].startswith("none of the 2 documents")


def test_a_calibration_is_stale_once_documents_came(tmp_path, colbert, token_corpus, capsys):
    index, one, queries = str(tmp_path / "i"), tmp_path / "one.jsonl", tmp_path / "q.txt"
    texts = [f"sun {word} and snow {i}" for i, word in enumerate(["moon", "rain", "ice", "lake"] * 10)]
    Path(token_corpus).write_text("".join(json.dumps({"_id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    assert main(["build", token_corpus, "--out", index, "--encoder", f"colbert={colbert},nbits=8,exact=false"]) == 0
    queries.write_text("sun and snow\nice on the lake\n")
    capsys.readouterr()
    assert main(["calibrate", index, "--queries", str(queries), "-k", "3"]) == 0
    err = capsys.readouterr().err
    assert re.search(r"encoding \d+ documents again with colbert:[0-9a-f]{16}: the field keeps no exact tokens", err)
    assert re.search(r"2 queries \(given\) against colbert:[0-9a-f]{16}, over 40 documents", err)
    assert len(found(capsys, index, "ice on the lake", "-k", "3", "--target-recall", "0.5")) == 3
    assert main(["search", index, "ice", "-k", "4", "--target-recall", "0.5"]) == 2
    assert "up to 3 answers, not 4: run `lexmax calibrate" in capsys.readouterr().err
    one.write_text(json.dumps({"_id": "one", "text": "one more"}) + "\n")
    assert main(["add", index, str(one)]) == 0
    capsys.readouterr()
    with pytest.warns(CalibrationWarning, match="documents went from 40 to 41"):
        assert main(["search", index, "ice", "-k", "3", "--target-recall", "0.5"]) == 0
    with _plain_warnings():
        assert warnings.formatwarning("stale", CalibrationWarning, "file.py", 3) == "lexmax: warning: stale\n"
    one.write_text("".join(json.dumps({"_id": f"more{i}", "text": "much more"}) + "\n" for i in range(20)))
    assert main(["add", index, str(one)]) == 0
    capsys.readouterr()
    assert main(["search", index, "ice", "-k", "3", "--target-recall", "0.5"]) == 2
    assert re.search(r"since then .*: run `lexmax calibrate .* again", capsys.readouterr().err)
    assert main(["info", index]) == 0
    assert "; STALE: " in out(capsys)


def test_token_vectors_are_added_deleted_and_compacted(tmp_path, colbert, token_corpus, capsys):
    index, more = str(tmp_path / "i"), tmp_path / "more.jsonl"
    assert main(["build", token_corpus, "--out", index, "--encoder", f"colbert={colbert},nbits=4"]) == 0
    more.write_text('{"_id": "e", "text": "ice on the lake"}\n')
    assert main(["add", index, str(more)]) == 0
    assert found(capsys, index, "ice on the lake", "-k", "1")[0]["doc_id"] == "e"
    assert main(["delete", index, "d0", "nope"]) == 1
    facts = facts_of(index, capsys)
    assert (facts["n_docs"], facts["n_deleted"], len(facts["segments"])) == (6, 1, 2)
    assert main(["compact", index]) == 0
    assert "2 -> 1 segments, 6 documents" in capsys.readouterr().err
    assert main(["check", index]) == 0
    facts = facts_of(index, capsys)
    assert (facts["n_docs"], facts["n_deleted"], len(facts["segments"])) == (6, 0, 1)
    rows = found(capsys, index, "what is the weather in ny now?")
    assert sorted(row["doc_id"] for row in rows) == ["d1", "d2", "d3", "d4", "d5", "e"]


def test_long_documents_are_split_for_token_vectors(tmp_path, colbert, token_corpus, capsys):
    index = str(tmp_path / "i")
    assert main(["build", token_corpus, "--out", index, "--encoder", f"colbert={colbert}", "--split-long"]) == 0
    err = capsys.readouterr().err
    assert "7 documents in" in err
    assert "1 documents longer than an encoder reads were cut into passages" in err
    rows = {row["doc_id"]: row for row in found(capsys, index, "ice on the river")}
    assert set(rows) == {"d0", "d1", "d2", "d3", "d4", "d5#1", "d5#2"}
    assert rows["d5#1"]["text"] == "a cold night in the city, a hot day by the sea."
    assert rows["d5#2"]["metadata"] == {"parent": "d5"}
    assert main(["build", "--encoder", "bm25", token_corpus, "--out", str(tmp_path / "j"), "--split-long"]) == 2
    assert "there is nothing to split" in capsys.readouterr().err


def test_scifact_has_the_published_bm25_quality(tmp_path, capsys):
    assert main(["build", "--encoder", "bm25", str(SCIFACT), "--out", str(tmp_path / "i")]) == 0
    capsys.readouterr()
    run = tmp_path / "run.trec"
    assert main(["eval", str(SCIFACT), "--index", str(tmp_path / "i"), "--json", "--run-out", str(run)]) == 0
    report = json.loads(out(capsys))
    assert report["n_queries"] == 300
    assert 0.66 <= report["measures"]["nDCG@10"] <= 0.69
    assert set(report["latency_ms"]) == {"p50", "p95", "p99"}
    line = run.read_text().split("\n", 1)[0].split()
    assert len(line) == 6
    assert line[5].startswith("bm25")
