"""Token vectors on disk, through the command line, Python and HTTP."""

import json
import time

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hashed_tokens import add_method

from lexmax import IndexFormatError, Retriever, Snapshot, StorageError, TokenStorage
from lexmax.__main__ import main
from lexmax.retrieval.build import build_index
from lexmax.server.app import create_app

WORDS = ["solar", "wind", "cells", "power", "storms", "panels", "turbines", "grid"]
SEARCH = "bm25:30 > tokens:20"
QUERY = "solar wind power"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    add_method()
    folder = tmp_path_factory.mktemp("ssd")
    rng = np.random.default_rng(1)
    with (folder / "corpus.jsonl").open("w") as out:
        for i in range(900):
            out.write(json.dumps({"_id": f"d{i}", "text": " ".join(rng.choice(WORDS, 8))}) + "\n")
    index = str(folder / "idx")
    encoders = ["--encoder", "bm25", "--encoder", "tokens=hashed"]
    assert main(["build", str(folder / "corpus.jsonl"), "--out", index, *encoders, "--search", SEARCH]) == 0
    return index


def search(path, capsys, *arguments):
    capsys.readouterr()
    assert main(["search", path, QUERY, "--json", "--timings", *arguments]) == 0
    told = capsys.readouterr()
    return told.out, told.err


def test_the_command_line_answers_alike_and_tells_what_it_read(path, capsys):
    mapped, err = search(path, capsys)
    assert "reads" not in err
    for arguments in (["--token-storage", "pread"], ["--memory-budget", "0"], ["--memory-budget", "1GiB"]):
        found, err = search(path, capsys, *arguments)
        assert found == mapped
        assert ("> tokens" in err and "(20 documents in " in err) == ("1GiB" not in arguments)
    assert main(["info", path]) == 0
    assert "records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--token-storage", "tape"], "must be one of auto, memory, mmap, io_uring"),
        (["--memory-budget", "much"], "takes a size, as in 500MB"),
        (["--memory-budget", "1GB", "--token-storage", "mmap"], "goes with reading from disk"),
        (["--option", "tokens.unreadable=ignore"], "must be error or keep"),
    ],
)
def test_wrong_options_end_in_one_line(path, capsys, arguments, message):
    assert main(["search", path, QUERY, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_python_and_http_tell_it_too(path):
    with Retriever.open(path) as mapped, Retriever.open(path, storage=TokenStorage(memory_budget=0)) as retriever:
        wanted = mapped.search(QUERY, timings=True)
        assert not wanted.reads
        found = retriever.search(QUERY, timings=True)
        assert list(found) == list(wanted)
        counts = found.reads["> tokens"]
        assert (counts.n_records, counts.n_unreadable) == (20, 0)
        assert counts.n_bytes >= 512 * counts.n_reads > 0
        (place,) = retriever.info()["fields"]["tokens"]["records"]
        assert place in ("io_uring", "libaio", "pread", "willneed")
    with TestClient(create_app(lambda: Retriever.open(path, storage="pread"))) as client:
        body = {"query": QUERY, "timings": True}
        end = time.monotonic() + 60
        while (answer := client.post("/v1/search", json=body)).status_code == 503 and time.monotonic() < end:
            time.sleep(0.02)  # it is still opening the index
        assert answer.json()["reads"]["> tokens"]["n_records"] == 20
        assert [hit["doc_id"] for hit in answer.json()["results"]] == [each.doc_id for each in wanted]
        assert list(client.get("/v1/index").json()["fields"]["tokens"]["records"]) == ["pread"]


def test_a_document_that_cannot_be_read_is_an_error_or_comes_last(path, capsys):
    store = Snapshot.open(path).field("tokens").segments[0].part.store
    with Retriever.open(path) as retriever:
        best = retriever.search(QUERY, 20)
    numbers = np.array([int(each.doc_id[1:]) for each in best])
    number = int(np.argmin(store.places(numbers).firsts))  # not beside the directory, without which nothing is read
    document, damaged = int(numbers[number]), best.pop(number)
    at = store.origin + int(store.places(np.array([document])).firsts[0]) * store.token_bytes
    with store.file.path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    try:
        for storage in ("mmap", "memory", "pread"):
            with Retriever.open(path, storage=storage) as retriever:
                with pytest.raises(IndexFormatError, match=rf"tokens\.lex: .*document {document} of"):
                    retriever.search(QUERY)
                found = retriever.search(QUERY, 20, options={"tokens": {"unreadable": "keep"}})
            assert [each.doc_id for each in found] == [each.doc_id for each in [*best, damaged]]
            assert [each.unreadable for each in found] == [False] * 19 + [True]
        assert main(["search", path, QUERY]) == 2
        assert "tokens.lex" in capsys.readouterr().err
        assert main(["search", path, QUERY, "-k", "20", "--option", "tokens.unreadable=keep"]) == 0
        assert "its tokens cannot be read" in capsys.readouterr().out.splitlines()[-2]
    finally:
        with store.file.path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """An index whose first stage scans lists of codes: likely candidates are known before it ends."""
    add_method()
    folder = tmp_path_factory.mktemp("encoded")
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(WORDS, 6)) + f" w{i % 50}" for i in range(2600)]
    fde = "fde=muvera,of=tokens,structure=ivf,quantise=pq,pq_bytes=16"
    build_index(
        documents=[{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)], out=str(folder / "idx"),
        encoders=["tokens=hashed", fde], search="fde:60 > tokens:40",
    )  # fmt: skip
    return str(folder / "idx")


def test_likely_candidates_are_read_while_the_first_stage_is_at_work(encoded):
    options = {"fde": {"n_candidates": 0}}
    texts = [QUERY, "storms w7", "grid panels power w11"]
    with Retriever.open(encoded) as mapped:
        wanted = [list(found) for found in mapped.search_batch(texts, options=options)]
    for place in ("io_uring", "libaio", "pread", "willneed"):
        try:
            retriever = Retriever.open(encoded, storage=place)
        except StorageError:
            continue
        with retriever:
            for n_threads in (1, 2):
                found = retriever.search_batch(texts, options=options, timings=True, n_threads=n_threads)
                assert [list(each) for each in found] == wanted
                counts = found[0].reads["> tokens"]
                assert 0 < counts.n_hits <= counts.n_guessed <= counts.n_records
            again = retriever.search(QUERY, timings=True)  # kept vectors order anew: nothing is guessed
            assert again.reads["> tokens"].n_guessed == 0


def test_the_command_line_tells_what_was_read_early(encoded, capsys):
    _, err = search(encoded, capsys, "--token-storage", "pread", "--option", "fde.n_candidates=0")
    assert "of them early, of which" in err
