"""An index folder that is replaced by a rebuild with equal counts: readers see it, in Python and over HTTP."""

import shutil
import time

import pytest

from lexmax import Retriever, Snapshot, build_index
from lexmax.server.app import create_app


def build(path, animal):
    """Two documents of equal lengths, whatever the animal of three letters."""
    shutil.rmtree(path, ignore_errors=True)
    documents = [{"id": "a", "text": f"{animal} one"}, {"id": "b", "text": "dog two"}]
    build_index(documents=documents, out=path, encoders=["bm25"])
    return Snapshot.open(path)


def counts(snapshot):
    segments = [(segment.name, segment.n_docs, segment.parts["bm25"].n_postings) for segment in snapshot.manifest.segments]
    return snapshot.generation, snapshot.n_docs, [(n_docs, n_postings) for _, n_docs, n_postings in segments]


def test_reload_sees_a_rebuild_with_equal_counts(tmp_path):
    first = build(tmp_path / "i", "cat")
    with Retriever.open(tmp_path / "i") as retriever:
        assert not retriever.reload()
        assert retriever.search("cat")[0].text == "cat one"
        second = build(tmp_path / "i", "owl")
        assert counts(first) == counts(second)
        assert first.manifest.build_id != second.manifest.build_id
        assert not first.manifest.files() & second.manifest.files()
        assert retriever.search("cat")[0].text == "cat one"  # a reader is not disturbed
        assert retriever.reload()
        assert (retriever.search("owl")[0].text, len(retriever.search("cat"))) == ("owl one", 0)
        assert not retriever.reload()


def test_a_server_answers_from_a_rebuild_with_equal_counts(tmp_path, run_server):
    build(tmp_path / "i", "cat")
    with run_server(create_app(Retriever.open(tmp_path / "i"), reload_every_s=0.05)) as (client, _):

        def texts(query):
            answer = client.post("/v1/search", json={"query": query}).json()
            return [result["text"] for result in answer["results"]]

        assert texts("cat") == ["cat one"]
        build(tmp_path / "i", "owl")
        deadline = time.monotonic() + 20
        while texts("owl") != ["owl one"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert texts("cat") == []


@pytest.mark.parametrize("replaced", ["renamed", "removed"])
def test_a_folder_that_is_away_for_a_while_keeps_the_old_answers(tmp_path, replaced):
    build(tmp_path / "i", "cat")
    with Retriever.open(tmp_path / "i") as retriever:
        if replaced == "renamed":
            (tmp_path / "i").rename(tmp_path / "old")
        else:
            shutil.rmtree(tmp_path / "i")
        with pytest.raises(Exception, match="no index at"):
            retriever.reload()
        assert retriever.search("cat")[0].text == "cat one"
        build(tmp_path / "i", "owl")
        assert retriever.reload()
        assert retriever.search("owl")[0].text == "owl one"
