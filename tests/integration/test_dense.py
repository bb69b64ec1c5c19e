"""Dense fields from end to end: vectors of SciFact's abstracts are imported, searched, audited, changed and compacted."""

import gzip
import json
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from lexmax.__main__ import main
from lexmax.index.check import check_index
from lexmax.index.snapshot import Snapshot

SCIFACT = Path(__file__).parents[2] / "eval" / "collections" / "scifact"
N_DOCS, DIM, N_QUERIES = 2500, 32, 10


WORDS = np.random.default_rng(0).standard_normal((8192, DIM)).astype(np.float32)


def vector_of(text):
    """The mean of random vectors of its words, of unit length."""
    mean = WORDS[[zlib.crc32(word.encode()) % len(WORDS) for word in text.lower().split()[:60]]].mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A folder with what is imported, and vectors of documents and queries."""
    folder = tmp_path_factory.mktemp("dense")
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt") as file:
        records = [json.loads(line) for line in islice(file, N_DOCS)]
    with (SCIFACT / "queries.jsonl").open() as file:
        queries = np.stack([vector_of(json.loads(line)["text"]) for line in islice(file, N_QUERIES)])
    vectors = np.stack([vector_of(f"{record['title']} {record['text']}") for record in records])
    np.save(folder / "vectors.npy", vectors)
    (folder / "ids.txt").write_text("".join(f"{record['_id']}\n" for record in records))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder, [record["_id"] for record in records], vectors, queries


@pytest.mark.parametrize(
    "settings", [["structure=flat"], ["structure=ivf", "quantise=int8", "search_dim=24"], ["structure=hnsw"]], ids=" ".join
)
def test_a_field_of_real_texts(collection, tmp_path, capsys, settings):
    folder, ids, vectors, queries = collection
    index = str(tmp_path / "idx")
    files = [str(folder / name) for name in ("vectors.npy", "ids.txt", "corpus.jsonl")]
    source = ["import", files[0], "--ids", files[1], "--documents", files[2]]
    assert main([*source, "--out", index, *(part for each in settings for part in ("--set", each))]) == 0
    exact = settings == ["structure=flat"]
    capsys.readouterr()
    assert main(["audit", index, "dense", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["recall"] == 1 if exact else record["recall"] > 0.7
    assert main(["info", index]) == 0
    assert f"search                       {'exact' if exact else 'approximate'}: " in capsys.readouterr().out

    def found(number):
        assert main(["search", index, "--vector", json.dumps(queries[number].tolist()), "-k", "10", "--json"]) == 0
        return [json.loads(line)["doc_id"] for line in capsys.readouterr().out.splitlines()]

    def best(number, left_out=()):
        scores = vectors.astype(np.float16).astype(np.float64) @ queries[number].astype(np.float64)
        return [ids[i] for i in np.argsort(-scores, kind="stable") if ids[i] not in left_out][:10]

    shares = [len(set(found(number)) & set(best(number))) / 10 for number in range(N_QUERIES)]
    assert np.mean(shares) == 1 if exact else np.mean(shares) > 0.7
    gone = {each for number in range(N_QUERIES) for each in best(number)[:5]}
    assert main(["delete", index, *gone]) == 0
    shares = [len(set(found(number)) & set(best(number, gone))) / 10 for number in range(N_QUERIES)]
    assert np.mean(shares) == 1 if exact else np.mean(shares) > 0.7
    assert main(["compact", index]) == 0
    assert check_index(index) == []
    snapshot = Snapshot.open(index, verify=True)
    assert snapshot.n_docs == N_DOCS - len(gone)
    assert snapshot.info()["fields"]["dense"]["audit"]["outdated"] is True
    first = next(i for i in range(N_DOCS) if ids[i] not in gone)
    assert np.abs(snapshot.field("dense").document_vector(0) - vectors[first]).max() < 1e-3
    capsys.readouterr()
    assert not gone & set(found(0))
