"""Index folders as Stanford's ColBERT and fast-plaid write them, made here from random tokens."""

import json
import os
import pickle
import sqlite3
from itertools import pairwise

import numpy as np
import pytest
import torch
from token_vectors import clustered, token_vectors, unit
from unit.encoders import colbert_models

from lexmax import DatasetError, DuplicateDocumentError, IndexFormatError, RepresentationError, Retriever
from lexmax.__main__ import main
from lexmax.index.multivector.colbertv2 import ColbertV2Codec, unpack
from lexmax.index.representations.multivectors import MultiVectors
from lexmax.index.snapshot import Snapshot
from lexmax.retrieval.encoders.precomputed import TokenVectorsEncoder
from lexmax.retrieval.encoders.registry import load_encoder
from lexmax.retrieval.exchange import plaid
from lexmax.retrieval.exchange.plaid import PlaidFolder, import_plaid

DIM, N_DOCS, CHUNK = 32, 70, 30
KINDS = ["stanford", "fast-plaid", "merged"]


def make_codec(dim=DIM, nbits=2):
    rng = np.random.default_rng(dim)
    centroids = unit(rng.standard_normal((48, dim))).astype(np.float16).astype(np.float32)
    return ColbertV2Codec.fit(centroids, clustered(np.random.default_rng(7), 500, dim), nbits)


def write(folder, kind, vectors, codec):
    """Write a folder; returns what its tokens decode to, by the formula alone."""
    folder.mkdir()
    codes, packed = codec.encode(vectors.tokens)
    arrays = {"centroids": codec.centroids.astype(np.float16)}
    n_chunks = -(-len(vectors) // CHUNK)
    for i in range(n_chunks):
        bounds = vectors.offsets[[i * CHUNK, min((i + 1) * CHUNK, len(vectors))]]
        arrays[f"{i}.codes"], arrays[f"{i}.residuals"] = codes[slice(*bounds)], packed[slice(*bounds)]
        widths = np.diff(vectors.offsets)[i * CHUNK : (i + 1) * CHUNK].tolist()
        (folder / f"doclens.{i}.json").write_text(json.dumps(widths))
    metadata = {"num_chunks": n_chunks, "num_partitions": len(codec.centroids), "num_embeddings": len(codes)}
    if kind == "stanford":
        metadata["config"] = {"dim": codec.dim, "nbits": codec.nbits}
        torch.save((torch.from_numpy(codec.cutoffs), torch.from_numpy(codec.weights)), folder / "buckets.pt")
        for name, array in arrays.items():
            torch.save(torch.from_numpy(array), folder / f"{name}.pt")
    else:
        metadata["nbits"] = codec.nbits
        arrays |= {"bucket_cutoffs": codec.cutoffs, "bucket_weights": codec.weights}
        if kind == "merged":
            merge(folder, arrays, n_chunks)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array.astype(np.int64) if name.endswith("codes") else array)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    sums = codec.centroids[codes] + codec.weights[unpack(packed, codec.nbits)]
    return unit(sums)


def merge(folder, arrays, n_chunks):
    """Move the arrays of chunks but the last into those of all, as fast-plaid 1.7 has them in the midst of an update."""
    for kind in ("codes", "residuals"):
        parts = [arrays[f"{i}.{kind}"] for i in range(n_chunks)]
        padding = np.zeros((5, *parts[0].shape[1:]), parts[0].dtype)
        arrays[f"merged_{kind}"] = np.concatenate([*parts, padding])
        entries = {f"{i}.{kind}.npy": {"rows": len(part), "merged": True, "mtime": None} for i, part in enumerate(parts)}
        (folder / f"merged_{kind}.manifest.json").write_text(json.dumps(entries))
        for i in range(n_chunks - 1):
            del arrays[f"{i}.{kind}"]


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(1)
    return token_vectors(rng, [0, *rng.integers(1, 30, N_DOCS - 2), 0], DIM)


@pytest.fixture
def folder(tmp_path, vectors):
    """A Stanford folder to be damaged."""
    write(tmp_path / "plaid", "stanford", vectors, make_codec())
    return tmp_path / "plaid"


def maxsim(query, tokens, offsets):
    products = query @ tokens.T
    return np.array([products[:, i:j].max(axis=1).sum() if i < j else 0.0 for i, j in pairwise(offsets)])


@pytest.mark.parametrize("nbits", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_answers_are_those_of_the_folder(tmp_path, vectors, kind, nbits):
    expected = write(tmp_path / "plaid", kind, vectors, make_codec(nbits=nbits))
    progress = []
    report = import_plaid(tmp_path / "plaid", tmp_path / "idx", progress=progress.append)
    assert report.n_added == N_DOCS
    assert progress[-1] == N_DOCS
    snapshot = Snapshot.open(tmp_path / "idx", verify=True)
    found = [snapshot.field("tokens").document_tokens(number) for number in range(N_DOCS)]
    assert [len(tokens) for tokens in found] == np.diff(vectors.offsets).tolist()
    assert np.abs(np.concatenate(found) - expected).max() < 0.01
    encoder = TokenVectorsEncoder(dim=DIM)
    with Retriever.open(tmp_path / "idx", encoders={"tokens": encoder}, exhaustive=True) as retriever:
        for query in (clustered(np.random.default_rng(seed), 8, DIM) for seed in range(5)):
            scores = maxsim(query, expected, vectors.offsets)
            answers = retriever.search_vectors([query], k=10)[0]
            best = np.sort(scores)[::-1][:10]
            assert [answer.score for answer in answers] == pytest.approx(best, abs=0.02)
            assert all(scores[int(answer.doc_id)] > best[-1] - 0.04 for answer in answers)


def test_batches_make_no_difference(folder, monkeypatch):
    whole = list(PlaidFolder(folder).vectors())
    assert [len(part) for part in whole] == [30, 30, 10]
    monkeypatch.setattr(plaid, "BATCH_TOKENS", 20)
    parts = list(PlaidFolder(folder).vectors())
    assert max(part.n_tokens for part in parts if len(part) > 1) <= 20
    assert np.array_equal(np.concatenate([p.tokens for p in parts]), np.concatenate([p.tokens for p in whole]))
    widths = [np.concatenate([np.diff(p.offsets) for p in found]).tolist() for found in (parts, whole)]
    assert widths[0] == widths[1]


def test_texts_come_from_a_corpus_by_passage_number(tmp_path, folder):
    corpus = tmp_path / "collection.tsv"
    corpus.write_text("".join(f"{i}\ttext {i}\n" for i in reversed(range(N_DOCS))))
    import_plaid(folder, tmp_path / "idx", documents=[str(corpus)])
    documents = Snapshot.open(tmp_path / "idx").get_many([0, 41])
    assert [(document.doc_id, document.text) for document in documents] == [("0", "text 0"), ("41", "text 41")]


def test_texts_come_from_the_folder_and_ids_from_a_file(tmp_path, folder):
    (folder / "collection.json").write_text(json.dumps([f"passage {i}" for i in range(N_DOCS)]))
    (tmp_path / "ids.txt").write_text("".join(f"p{i}\n" for i in range(N_DOCS)))
    import_plaid(folder, tmp_path / "idx", ids=tmp_path / "ids.txt")
    document = Snapshot.open(tmp_path / "idx").get_many([3])[0]
    assert (document.doc_id, document.text) == ("p3", "passage 3")


def test_tokens_are_stored_as_asked(tmp_path, folder):
    import_plaid(folder, tmp_path / "idx", storage={"nbits": 4, "exact": False, "n_centroids": 16})
    config = Snapshot.open(tmp_path / "idx").field("tokens").record.options
    assert config == {"dim": DIM, "nbits": 4, "exact": False, "n_centroids": 16}


def test_without_a_model_texts_are_refused_and_matrices_explained(tmp_path, folder):
    import_plaid(folder, tmp_path / "idx", name="mine")
    encoder = TokenVectorsEncoder(dim=DIM, name="mine")
    with Retriever.open(tmp_path / "idx", encoders={"tokens": encoder}, warm=True) as retriever:
        with pytest.raises(RepresentationError, match=r"search_vectors\(\[matrix\]\)"):
            retriever.search("text")
        query = clustered(np.random.default_rng(1), 4, DIM)
        (best,) = retriever.search_vectors([query], k=1, explain=True)[0]
        assert sum(match.score for match in best.explanation.stages[0].fields[0].tokens) == pytest.approx(best.score, abs=0.05)
    with pytest.raises(ValueError, match="dim"):
        TokenVectorsEncoder(dim=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return colbert_models.stanford(tmp_path_factory.mktemp("models") / "colbert")


def test_with_the_model_that_made_them_texts_are_searched(tmp_path, model, capsys):
    encoder = load_encoder(model=str(model))
    texts = [text for text in colbert_models.TEXTS if text]
    vectors = encoder.encode_documents(texts)
    expected = write(tmp_path / "plaid", "stanford", vectors, make_codec(encoder.dim, 8))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    out = str(tmp_path / "idx")
    assert main(["import", str(tmp_path / "plaid"), "--out", out, "--encoder", str(model), "--documents", str(corpus)]) == 0
    assert "cannot be verified" in capsys.readouterr().err
    assert main(["search", out, "sun and snow", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    scores = maxsim(encoder.encode_queries(["sun and snow"]).tokens, expected, vectors.offsets)
    assert [answer["doc_id"] for answer in found] == [str(i) for i in np.argsort(-scores)]
    assert found[0]["text"] == texts[int(found[0]["doc_id"])]


def test_a_model_of_another_dim_is_refused(tmp_path, folder, model):
    with pytest.raises(RepresentationError, match="dim 32, and colbert makes some of dim 16"):
        import_plaid(folder, tmp_path / "idx", encoder=load_encoder(model=str(model)))


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--term-numbers"], "imported alone"), (["--reorder"], "imported alone"), (["--vocabulary", "v"], "imported alone")],
)
def test_options_of_other_imports_are_refused(tmp_path, folder, capsys, options, message):
    assert main(["import", str(folder), "--out", str(tmp_path / "idx"), *options]) == 2
    assert message in capsys.readouterr().err


def test_token_options_are_refused_for_sparse_vectors(tmp_path, capsys):
    assert main(["import", str(tmp_path / "v.jsonl"), "--out", str(tmp_path / "idx"), "--encoder", "bm25,nbits=4"]) == 2
    assert "folder of ColBERT" in capsys.readouterr().err


@pytest.mark.parametrize(("n", "message"), [(N_DOCS - 1, "69 ids for 70"), (N_DOCS + 1, "71 ids for 70")])
def test_too_few_or_many_ids_are_refused(tmp_path, folder, n, message):
    (tmp_path / "ids.txt").write_text("".join(f"{i}\n" for i in range(n)))
    with pytest.raises(DatasetError, match=message):
        import_plaid(folder, tmp_path / "idx", ids=tmp_path / "ids.txt")


def test_ids_that_come_twice_are_refused(tmp_path, folder):
    (tmp_path / "ids.txt").write_text("same\n" * N_DOCS)
    with pytest.raises(DuplicateDocumentError, match="same"):
        import_plaid(folder, tmp_path / "idx", ids=tmp_path / "ids.txt")


def save(name, value):
    return lambda folder: torch.save(value, folder / name)


def text(name, value):
    return lambda folder: (folder / name).write_text(value)


@pytest.mark.parametrize(
    ("damage", "name", "message"),
    [
        (lambda folder: (folder / "metadata.json").unlink(), "metadata.json", "found nothing"),
        (text("metadata.json", "{"), "metadata.json", "expected JSON"),
        (text("metadata.json", "[1]"), "metadata.json", "num_chunks"),
        (text("metadata.json", '{"num_chunks": true}'), "metadata.json", "found True"),
        (text("metadata.json", '{"num_chunks": 2}'), "metadata.json", "a num_chunks that counts doclens.2.json, found 2"),
        (
            text("pid_docid_map.json", '{"0": "a"}'),
            "pid_docid_map.json",
            "an id for each of 70 passages, found ids of 1",
        ),
        (text("pid_docid_map.json", '["a"]'), "pid_docid_map.json", "ids by passage numbers"),
        (text("plaid_ids_to_documents_ids.sqlite", "no table"), "plaid_ids_to_documents_ids.sqlite", "a table of ids"),
        (text("metadata.json", '{"num_chunks": 3, "config": {"nbits": 4}}'), "buckets.pt", "4 bits, found 2 bits"),
        (text("doclens.1.json", "[1, -1]"), "doclens.1.json", "whole numbers"),
        (lambda folder: (folder / "doclens.2.json").unlink(), "doclens.2.json", "found nothing"),
        (lambda folder: (folder / "buckets.pt").unlink(), "buckets.pt", "found nothing"),
        (save("buckets.pt", torch.zeros(3)), "buckets.pt", "two tensors"),
        (save("buckets.pt", (torch.zeros(2), torch.zeros(4))), "buckets.pt", "2 cutoffs and 4 weights"),
        (save("centroids.pt", torch.zeros(48, 12)), "buckets.pt", "multiple of 8"),
        (save("centroids.pt", {"not": "a tensor"}), "centroids.pt", "expected a tensor, found dict"),
        (save("1.codes.pt", torch.zeros(3, dtype=torch.int32)), "1.codes.pt", "whole numbers"),
        (save("1.residuals.pt", torch.zeros(3, 8)), "1.residuals.pt", "bytes of shape"),
        (text("0.codes.pt", "no torch file"), "0.codes.pt", "a torch file of tensors"),
        (lambda folder: os.truncate(folder / "0.residuals.pt", 300), "0.residuals.pt", "a torch file of tensors"),
        (text("collection.json", '["one"]'), "collection.json", "70 strings"),
    ],
)
def test_damage_is_named(tmp_path, folder, damage, name, message):
    damage(folder)
    with pytest.raises(IndexFormatError) as caught:
        import_plaid(folder, tmp_path / "idx")
    assert str(caught.value).startswith(str(folder / name))
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_embeddings", [0, 5, 10**9, None])
def test_a_wrong_number_of_embeddings_in_the_metadata_is_passed_over(tmp_path, vectors, kind, n_embeddings):
    """Programs that add to a folder or delete from it leave the number as it was: the arrays decide."""
    write(tmp_path / "plaid", kind, vectors, make_codec())
    path = tmp_path / "plaid" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_embeddings": n_embeddings}))
    assert import_plaid(tmp_path / "plaid", tmp_path / "idx").n_added == N_DOCS


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_without_passages_or_tokens_and_lengths_written_as_floats(tmp_path, kind):
    rng = np.random.default_rng(2)
    widths = [*[0] * CHUNK, *rng.integers(1, 9, CHUNK).tolist(), 0, 3]
    expected = write(tmp_path / "plaid", kind, token_vectors(rng, widths, DIM), make_codec())
    for path in (tmp_path / "plaid").glob("doclens.*.json"):
        path.write_text(json.dumps([float(width) for width in json.loads(path.read_text())]))
    if kind == "stanford":  # an empty tensor keeps no width
        torch.save(torch.zeros(0, dtype=torch.uint8), tmp_path / "plaid" / "0.residuals.pt")
    found = list(PlaidFolder(tmp_path / "plaid").vectors())
    assert np.concatenate([np.diff(part.offsets) for part in found]).tolist() == widths
    np.testing.assert_allclose(np.concatenate([part.tokens for part in found]), expected, atol=1e-5)


def as_json(folder, ids):
    (folder / "pid_docid_map.json").write_text(json.dumps(dict(enumerate(ids))))


def as_pickle(folder, ids):
    (folder.parent / "plaid_ids_to_documents_ids.pkl").write_bytes(pickle.dumps(dict(enumerate(ids))))


def as_sqlite(folder, ids):
    with sqlite3.connect(folder / "plaid_ids_to_documents_ids.sqlite") as database:
        database.execute("CREATE TABLE unnamed (key TEXT PRIMARY KEY, value BLOB)")
        rows = [(str(number), pickle.dumps(doc_id)) for number, doc_id in enumerate(ids)]
        database.executemany("INSERT INTO unnamed VALUES (?, ?)", rows)


@pytest.mark.parametrize("keep", [as_json, as_pickle, as_sqlite])
def test_ids_that_are_kept_beside_the_index_are_read(tmp_path, folder, keep):
    """Of RAGatouille and PyLate; passages of one document are numbered from 1."""
    keep(folder, [f"doc {i}" for i in range(N_DOCS - 3)] + ["long", "long", "long"])
    import_plaid(folder, tmp_path / "idx")
    documents = Snapshot.open(tmp_path / "idx").get_many([0, N_DOCS - 4, N_DOCS - 2])
    assert [document.doc_id for document in documents] == ["doc 0", f"doc {N_DOCS - 4}", "long#2"]
    assert [dict(document.metadata) for document in documents] == [{}, {}, {"parent": "long"}]
    (tmp_path / "ids.txt").write_text("".join(f"own {i}\n" for i in range(N_DOCS)))
    import_plaid(folder, tmp_path / "idx 2", ids=tmp_path / "ids.txt")
    assert Snapshot.open(tmp_path / "idx 2").get_many([7])[0].doc_id == "own 7"


def test_ids_in_a_pickle_of_other_objects_are_never_loaded(tmp_path, folder):
    (folder / "plaid_ids_to_documents_ids.pkl").write_bytes(pickle.dumps({0: Snapshot}))
    with pytest.raises(IndexFormatError, match=r"a pickle of plain ids, found an object of lexmax\.index\.snapshot\.Snapshot"):
        import_plaid(folder, tmp_path / "idx")


@pytest.mark.parametrize("code", [-1, 48])
def test_codes_of_no_centroid_are_refused(tmp_path, folder, code):
    codes = torch.load(folder / "1.codes.pt", weights_only=True)
    codes[3] = code
    torch.save(codes, folder / "1.codes.pt")
    with pytest.raises(IndexFormatError, match="centroids 0 to 47"):
        import_plaid(folder, tmp_path / "idx")


class Trap:
    """What a hostile file would have unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_torch_file_is_run(tmp_path, folder):
    torch.save(Trap(str(tmp_path / "sprung")), folder / "2.codes.pt")
    with pytest.raises(IndexFormatError, match="UnpicklingError"):
        import_plaid(folder, tmp_path / "idx")
    assert not (tmp_path / "sprung").exists()


def test_pickled_arrays_and_archives_are_refused(tmp_path, vectors):
    folder = tmp_path / "plaid"
    write(folder, "fast-plaid", vectors, make_codec())
    np.save(folder / "0.codes.npy", np.array([{}], object))
    with pytest.raises(IndexFormatError, match=r"0.codes.npy: expected an array of numbers"):
        import_plaid(folder, tmp_path / "idx")
    with (folder / "0.codes.npy").open("wb") as file:
        np.savez(file, x=np.zeros(3))
    with pytest.raises(IndexFormatError, match=r"0.codes.npy: expected an array of numbers, found an archive"):
        import_plaid(folder, tmp_path / "idx")
    (folder / "0.codes.npy").unlink()
    with pytest.raises(IndexFormatError, match=r"0.codes.npy: expected an array, found nothing"):
        import_plaid(folder, tmp_path / "idx")


def test_an_unfinished_update_of_fast_plaid_is_refused(tmp_path, vectors):
    folder = tmp_path / "plaid"
    write(folder, "merged", vectors, make_codec())
    manifest = folder / "merged_codes.manifest.json"
    entries = json.loads(manifest.read_text())
    entries["0.codes.npy"]["rows"] += 1
    manifest.write_text(json.dumps(entries))
    with pytest.raises(IndexFormatError, match="open the index with fast-plaid once"):
        import_plaid(folder, tmp_path / "idx")


def test_an_empty_folder_index_gives_an_empty_index(tmp_path):
    empty = MultiVectors(np.zeros(1, np.int64), np.empty((0, DIM), np.float32))
    write(tmp_path / "plaid", "fast-plaid", empty, make_codec())
    assert import_plaid(tmp_path / "plaid", tmp_path / "idx").n_added == 0
    assert Snapshot.open(tmp_path / "idx").n_docs == 0
