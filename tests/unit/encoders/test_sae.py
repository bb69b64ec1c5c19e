"""Sparse autoencoders over tiny random models, against a plain computation from their files."""

import json
import shutil

import numpy as np
import pytest
from models import TEXTS, raw
from sae_models import N_LATENTS, weights_of, write_sae
from safetensors.numpy import load_file, save_file

from lexmax import Retriever, load_encoder
from lexmax.index.errors import EncoderMismatchError, RepresentationError
from lexmax.retrieval.encoders.networks.packing import pack_folder
from lexmax.retrieval.encoders.networks.trunk import Trunk
from lexmax.retrieval.encoders.shared_pass import SharedPass
from lexmax.retrieval.fields import index_encoder


@pytest.fixture(scope="module")
def dense_model(tmp_path_factory):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    place = tmp_path_factory.mktemp("dense")
    modules = [
        Transformer(str(raw(place / "source")), transformer_task="feature-extraction", max_seq_length=16),
        Pooling(32, "mean"),
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(place / "m"))
    return place / "m"


@pytest.fixture(scope="module")
def sae(stanford, tmp_path_factory):
    return write_sae(tmp_path_factory.mktemp("sae") / "m", stanford, "colbert")


def rows_of(vectors):
    pairs = (vectors.row(i) for i in range(len(vectors)))
    rows = [dict(zip(terms.tolist(), weights.tolist(), strict=True)) for terms, weights in pairs]
    if vectors.vocabulary is None:
        return rows
    numbers = [int(name.split()[0].removeprefix("latent-")) for name in vectors.vocabulary]
    return [{numbers[term]: weight for term, weight in row.items()} for row in rows]


def matrices(encoder, texts, side):
    vectors = getattr(encoder, f"encode_{side}")(texts)
    return [vectors.row(i) for i in range(len(texts))] if hasattr(vectors, "tokens") else list(vectors.vectors[:, None])


LOG1P = {"weighting": "log1p", "document_pooling": "max", "gain": 1.0}


@pytest.mark.parametrize("kind", ["colbert", "dense"])
@pytest.mark.parametrize("settings", [{}, {"query_pooling": "sum", "gain": 3.0}, LOG1P])
def test_weights_are_those_of_a_plain_computation(kind, settings, stanford, dense_model, tmp_path):
    base = stanford if kind == "colbert" else dense_model
    folder = write_sae(tmp_path / "m", base, kind, **settings)
    encoder, below = load_encoder(model=str(folder)), load_encoder(kind, model=str(base), dtype="float32")
    assert (encoder.kind, encoder.representation) == ("sae", "sparse")
    for side, encode in (("documents", encoder.encode_documents), ("queries", encoder.encode_queries)):
        rows = rows_of(encode(TEXTS))
        for row, matrix in zip(rows, matrices(below, TEXTS, side), strict=True):
            expected = weights_of(folder, matrix, query=side == "queries")
            assert row.keys() == expected.keys()
            np.testing.assert_allclose([row[n] for n in expected], list(expected.values()), rtol=2e-5, atol=1e-6)
        assert max(map(len, rows)) >= 3


def test_a_text_has_the_same_weights_whatever_is_beside_it(sae):
    encoder = load_encoder(model=str(sae))
    for text, together in zip(TEXTS, rows_of(encoder.encode_queries(TEXTS)), strict=True):
        (alone,) = rows_of(encoder.encode_queries([text]))
        assert alone.keys() == together.keys()
        np.testing.assert_allclose(list(alone.values()), list(together.values()), rtol=1e-5)


def test_in_a_shared_pass_the_trunk_runs_once(sae, stanford, monkeypatch):
    encoders = {"sae": load_encoder(model=str(sae)), "colbert": load_encoder(model=str(stanford))}
    alone = {name: encoder.encode_documents(TEXTS) for name, encoder in encoders.items()}
    runs, states = [], Trunk.states
    monkeypatch.setattr(Trunk, "states", lambda self, rows: runs.append(len(rows)) or states(self, rows))
    shared = SharedPass(encoders)
    together = shared.encode_documents(TEXTS)
    assert sum(runs) == len(TEXTS)
    assert rows_of(together["sae"]) == rows_of(alone["sae"])
    np.testing.assert_allclose(together["colbert"].tokens, alone["colbert"].tokens, atol=1e-6)
    runs.clear()
    shared.encode_queries(TEXTS)
    assert sum(runs) == len(TEXTS)


def test_settings_cut_vectors_and_count_in_the_fingerprint(sae):
    encoders = [
        load_encoder("sae", model=str(sae), **settings)
        for settings in ({}, {"document_top_k": 2}, {"query_top_k": 2}, {"document_length": 6}, {"dtype": "bfloat16"})
    ]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    whole, cut = (rows_of(encoder.encode_documents(TEXTS)) for encoder in encoders[:2])
    for row, kept in zip(whole, cut, strict=True):
        assert kept == dict(sorted(row.items(), key=lambda pair: -pair[1])[:2])
    assert encoders[3].n_truncated(TEXTS) > encoders[0].n_truncated(TEXTS)


@pytest.mark.parametrize("settings", [{}, LOG1P])
def test_an_index_finds_explains_and_opens_again(settings, stanford, tmp_path):
    sae = write_sae(tmp_path / "m", stanford, "colbert", **settings)
    texts = [text for text in TEXTS if text]
    with Retriever.from_texts(texts, encoders=[f"latents={sae}"]) as retriever:
        results = retriever.search(texts[1], k=3, explain=True)
        assert results[0].text == texts[1]
        (field,) = results[0].explanation.stages[0].fields
        assert sum(match.score for match in field.terms) == pytest.approx(results[0].score, rel=1e-4)
        assert all(match.term.startswith("latent-") for match in field.terms)
        assert not any(match.query_expanded or match.document_expanded for match in field.terms)
        record = retriever.snapshot.manifest.fields["latents"]
        assert index_encoder(record).fingerprint == record.encoder.fingerprint
        moved = shutil.copytree(sae, tmp_path / "moved")
        tensors = load_file(moved / "model.safetensors")
        save_file({**tensors, "encoder": 2 * tensors["encoder"]}, moved / "model.safetensors")
        with pytest.raises(EncoderMismatchError):
            index_encoder(record, model=str(moved))


def test_latents_have_names_of_their_own(sae):
    names = load_encoder(model=str(sae)).names
    assert names[:2] == ["latent-0 word0", "latent-1 word1"]
    assert names[7] == "latent-7"
    assert len(set(names)) == N_LATENTS


def test_packed_weights_say_nearly_the_same(sae, tmp_path):
    pack_folder(sae, tmp_path / "packed")
    ours, packed = (load_encoder(model=str(folder)).encode_documents(TEXTS[:3]) for folder in (sae, tmp_path / "packed"))
    dense = np.zeros((2, 3, N_LATENTS))
    for which, vectors in enumerate((ours, packed)):
        for number, row in enumerate(rows_of(vectors)):
            dense[which, number, list(row)] = list(row.values())
    cosines = (dense[0] * dense[1]).sum(1) / np.linalg.norm(dense, axis=2).prod(0)
    assert cosines.min() > 0.9  # rounding may let another latent in


def test_another_base_model_is_refused_and_a_moved_one_found(sae, stanford, models, tmp_path):
    config = json.loads((sae / "config.json").read_text())
    folder = shutil.copytree(sae, tmp_path / "m")
    config["base"]["model"] = str(tmp_path / "gone")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception, match="no model folder at"):
        load_encoder(model=str(folder))
    load_encoder("sae", model=str(folder), base=str(stanford))
    other = shutil.copytree(stanford, tmp_path / "other")
    metadata = json.loads((other / "artifact.metadata").read_text())
    (other / "artifact.metadata").write_text(json.dumps({**metadata, "doc_maxlen": 9}))
    with pytest.raises(RepresentationError, match=r"was trained on vectors of .*base=DIR_OR_ID"):
        load_encoder("sae", model=str(folder), base=str(other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version is 2; this lexmax reads version 1"),
        ({"topk": 3}, "'topk' is 3"),
        ({"n_active": 0}, "n_active is 0: expected a whole number"),
        ({"n_active": 99}, "n_active is 99, of 24 latents"),
        ({"n_latents": True}, "n_latents is True"),
        ({"scale": "1"}, "scale is '1': expected a number above 0"),
        ({"scale": 0}, "scale is 0"),
        ({"b": 1.5}, "b is 1.5: expected 0 to 1"),
        ({"query_pooling": "mean"}, "query_pooling is 'mean': expected max or sum"),
        ({"weighting": None}, "weighting is None: expected log1p or bm25"),
        ({"base": []}, r"base is \[\]: expected an object"),
        ({"base": {"kind": "bm25"}}, "base: kind is 'bm25': expected colbert or dense"),
        ({"base": {"kind": "colbert", "model": 3, "fingerprint": ""}}, "base: model and fingerprint must be texts"),
        ({"document_top_k": -1}, "document_top_k is -1"),
        ({"dim": 5}, "config.json says dim 5, the vectors of"),
        ({"n_latents": 25}, "encoder, decoder, encoder_bias, idf not there, or of other shapes"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(changes, message, sae, tmp_path):
    folder = shutil.copytree(sae, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(RepresentationError, match=message):
        load_encoder(model=str(folder)).encode_queries(["sun"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be read"),
        ("[]", "expected a list of 24 latents"),
        (json.dumps([{"label": 3, "tokens": [], "texts": []}] * N_LATENTS), "latent 0 is not a label with tokens and texts"),
        (json.dumps([{"label": "a", "tokens": [], "texts": [], "x": 1}] * N_LATENTS), "'x' is 1"),
    ],
)
def test_wrong_names_of_latents_are_refused(content, message, sae, tmp_path):
    folder = shutil.copytree(sae, tmp_path / "m")
    (folder / "latents.json").write_text(content)
    with pytest.raises(RepresentationError, match=message):
        _ = load_encoder(model=str(folder)).names


def test_wrong_settings_are_refused(sae):
    with pytest.raises(ValueError, match="query_top_k is 0: it must be >= 1"):
        load_encoder("sae", model=str(sae), query_top_k=0)
    with pytest.raises(TypeError, match="sae has no setting 'top_k'"):
        load_encoder("sae", model=str(sae), top_k=3)
    assert load_encoder("sae").fingerprint == load_encoder(model="lexmax-sae").fingerprint
