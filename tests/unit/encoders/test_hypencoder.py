"""Hypencoders in the published layout, against plain torch written from the paper's formulas."""

import json

import numpy as np
import pytest
import torch
from hypencoder_models import (
    BASE,
    HIDDEN,
    SIZES,
    config,
    expected_nets,
    expected_scores,
    expected_vectors,
    hypencoder,
    weights,
)
from models import TEXTS, write_json

from lexmax.index.errors import LexmaxError, RepresentationError
from lexmax.index.representations.nets import QueryNets
from lexmax.retrieval.encoders.checkpoints import hypencoder as layouts
from lexmax.retrieval.encoders.loader import load_model_encoder
from lexmax.retrieval.encoders.networks import hyper_head
from lexmax.retrieval.encoders.shared_pass import SharedPass


def loaded(folder, **options):
    return load_model_encoder(str(folder), **options)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return hypencoder(tmp_path_factory.mktemp("hyp") / "m")


@pytest.mark.parametrize("sizes", [(HIDDEN, 12), SIZES, (HIDDEN, HIDDEN, HIDDEN, 7)])
@pytest.mark.parametrize("pickled", [True, False])
def test_vectors_and_networks_are_those_of_the_formulas(sizes, pickled, tmp_path):
    encoder = loaded(hypencoder(tmp_path / "m", sizes, pickled=pickled), batch_size=3)
    assert (encoder.kind, encoder.representation, encoder.dim) == ("hypencoder", "nets", HIDDEN)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS).vectors, expected_vectors(TEXTS), atol=1e-5)
    nets = encoder.encode_queries(TEXTS)
    assert (nets.sizes, len(nets), nets.n_layers) == (sizes, len(TEXTS), len(sizes) - 1)
    for i, expected in enumerate(expected_nets(TEXTS, sizes)):
        for layer in range(nets.n_layers):
            np.testing.assert_allclose(nets.weights(layer)[i].T, expected[layer], atol=1e-5)
            np.testing.assert_allclose(nets.biases(layer)[i], expected[nets.n_layers + 1 + layer], atol=1e-5)
        np.testing.assert_allclose(nets.outputs[i], expected[nets.n_layers][:, 0], atol=1e-5)


def test_each_query_has_a_network_of_its_own(tiny):
    nets = loaded(tiny).encode_queries(TEXTS[:3])
    assert min(np.abs(nets.weights(0)[0] - nets.weights(0)[i]).max() for i in (1, 2)) > 0.01
    chosen = nets.select(np.array([2, 0]))
    np.testing.assert_array_equal(chosen.numbers, nets.numbers[[2, 0]])
    assert len(nets.select(np.array([], np.int64))) == 0


def test_without_weights_of_its_own_a_network_is_that_of_the_bases(tmp_path):
    """All queries share one network where the projections are zero."""
    tensors = {name: tensor * (0.0 if "_hyper_projection" in name else 1.0) for name, tensor in weights().items()}
    nets = loaded(hypencoder(tmp_path / "m", tensors=tensors)).encode_queries(TEXTS[:2])
    np.testing.assert_array_equal(nets.numbers[0], nets.numbers[1])
    np.testing.assert_array_equal(nets.weights(1)[0], tensors["query_encoder.hyper_base_matrices.1"][0])
    np.testing.assert_array_equal(nets.biases(0)[1], tensors["query_encoder.hyper_base_vectors.0"][0])


def test_texts_are_cut_to_each_sides_length(tiny):
    encoder = loaded(tiny, query_length=5, document_length=7)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS).vectors, expected_vectors(TEXTS, 7), atol=1e-5)
    expected = expected_nets(TEXTS, length=5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS).outputs, [net[2][:, 0] for net in expected], atol=1e-5)
    assert encoder.n_truncated(TEXTS) == loaded(tiny, document_length=7, query_length=9).n_truncated(TEXTS) > 0
    prints = {
        loaded(tiny, **each).fingerprint for each in ({}, {"query_length": 5}, {"document_length": 7}, {"dtype": "bfloat16"})
    }
    assert len(prints) == 4
    assert loaded(tiny, batch_size=1).fingerprint == loaded(tiny).fingerprint
    assert all(each.startswith("hypencoder:") for each in prints)


def test_precisions_of_the_transformer(tiny):
    exact = loaded(tiny)
    for dtype in ("bfloat16", "int8"):
        other = loaded(tiny, dtype=dtype)
        found, expected = (each.encode_documents(TEXTS).vectors for each in (other, exact))
        cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.97
        assert np.isfinite(other.encode_queries(TEXTS).numbers).all()


def test_a_shared_pass_gives_what_each_encoder_alone_gives(tiny):
    one, two = loaded(tiny), loaded(tiny, query_length=5)
    shared = SharedPass({"one": one, "two": two})
    queries, documents = shared.encode_queries(TEXTS), shared.encode_documents(TEXTS)
    for name, encoder in (("one", one), ("two", two)):
        np.testing.assert_allclose(queries[name].numbers, encoder.encode_queries(TEXTS).numbers, atol=1e-5)
        np.testing.assert_allclose(documents[name].vectors, encoder.encode_documents(TEXTS).vectors, atol=1e-5)
    assert one.load().query_trunk is two.load().document_trunk
    assert one.encode_documents([]).vectors.shape == (0, HIDDEN)
    assert len(one.encode_queries([])) == 0


def test_two_berts_where_they_are_not_shared(tmp_path):
    tensors = weights()
    for name in tensors:
        if name.startswith("passage_encoder."):
            tensors[name] = tensors[name] * 0.9
    encoder = loaded(hypencoder(tmp_path / "m", tensors=tensors, shared_encoder=False))
    assert np.abs(encoder.encode_documents(TEXTS[:2]).vectors - expected_vectors(TEXTS[:2]).numpy()).max() > 0.01
    np.testing.assert_allclose(encoder.encode_queries(TEXTS[:2]).outputs[0], expected_nets(TEXTS[:2])[0][2][:, 0], atol=1e-5)


def test_a_copy_may_be_missing_and_what_is_never_used_is_passed_over(tmp_path):
    tensors = {name: each for name, each in weights().items() if not name.startswith("passage_") and "pooler" not in name}
    tensors["query_encoder.transformer.embeddings.position_ids"] = torch.arange(64)[None]
    encoder = loaded(hypencoder(tmp_path / "m", tensors=tensors, pickled=False))
    np.testing.assert_allclose(encoder.encode_documents(TEXTS).vectors, expected_vectors(TEXTS), atol=1e-5)


def network_of(tiny, monkeypatch, tensors):
    monkeypatch.setattr(hyper_head, "read_tensors", lambda folder: tensors)
    return hyper_head.HypencoderNetwork(layouts.read_hypencoder_layout(tiny), device="cpu", dtype="float32")


@pytest.mark.parametrize("name", [name for name in weights() if "transformer" not in name or "layer.1.attention" in name])
def test_every_tensor_is_asked_for_by_its_name_and_shape(name, tiny, monkeypatch):
    tensors = weights()
    held = tensors.pop(name)
    with pytest.raises(RepresentationError, match=rf"1 tensors missing from the weights: {name}$"):
        network_of(tiny, monkeypatch, tensors)
    with pytest.raises(RepresentationError, match=rf"1 tensors of other shapes than config\.json states: {name} \(3, "):
        network_of(tiny, monkeypatch, {**tensors, name: torch.zeros(3, *held.shape)})


@pytest.mark.parametrize(
    "name", ["query_encoder.hyper_base_matrices.3", "passage_encoder.linear.weight", "query_encoder.transformer.encoder.x"]
)
def test_tensors_of_something_else(name, tiny, monkeypatch):
    with pytest.raises(RepresentationError, match=f"1 tensors that no Hypencoder of these sizes has: {name}"):
        network_of(tiny, monkeypatch, {**weights(), name: torch.zeros(2)})


def test_copies_that_differ(tiny, monkeypatch):
    tensors = weights()
    tensors["passage_encoder.transformer.embeddings.word_embeddings.weight"][3, 3] += 1
    with pytest.raises(RepresentationError, match=r"shared_encoder, and 1 tensors of passage_encoder\. differ"):
        network_of(tiny, monkeypatch, tensors)


def converter(**changes):
    kwargs = config()["query_encoder_kwargs"]
    return {"query_encoder_kwargs": {**kwargs, "converter_kwargs": {**kwargs["converter_kwargs"], **changes}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (converter(activation_type="gelu"), "activation_type is 'gelu': lexmax computes 'relu' alone"),
        (converter(do_residual_on_last=True), "do_residual_on_last is True"),
        (converter(do_layer_norm=False), "do_layer_norm is False"),
        (converter(layer_norm_before_residual=False), "layer_norm_before_residual is False"),
        (converter(bottleneck=3), "'bottleneck' is 3"),
        (converter(vector_dimensions=[32, 32, 2]), "the last of them 1"),
        (converter(vector_dimensions="32"), "vector_dimensions are '32'"),
        (converter(vector_dimensions=[32, 1]), "one or more hidden layers"),
        (converter(vector_dimensions=[32, 16, 16, 1]), "all but the last equal"),
        (converter(vector_dimensions=[16, 16, 1]), "begin with 16, and the states of tiny/bert are 32 wide"),
        ({"passage_encoder_kwargs": {"model_name_or_path": BASE, "pooling_type": "mean"}}, "pooling_type is 'mean'"),
        ({"passage_encoder_kwargs": {"model_name_or_path": "other"}}, "model_name_or_path is 'other'"),
        ({"passage_encoder_kwargs": None}, "passage_encoder_kwargs is None: expected an object"),
        ({"query_encoder_kwargs": {"model_name_or_path": 3, "converter_kwargs": {}}}, "model_name_or_path is"),
        ({"quantized": True}, "'quantized' is True"),
    ],
)
def test_settings_that_are_not_known_are_refused(changes, message, tmp_path):
    folder = hypencoder(tmp_path / "m", tensors={})
    write_json(folder / "config.json", config(**changes))
    with pytest.raises(RepresentationError, match=message):
        loaded(folder)


def test_the_base_network_is_known_or_lies_inside_the_folder(tmp_path, monkeypatch):
    folder = hypencoder(tmp_path / "m")
    settings = json.loads((folder / BASE / "config.json").read_text())
    (folder / BASE / "config.json").unlink()
    with pytest.raises(
        RepresentationError, match=r"began with tiny/bert, whose settings are not known here: put its config\.json"
    ):
        loaded(folder)
    for key, value, message in (
        ("model_type", "roberta", "type 'roberta', not 'bert'"),
        ("vocab_size", None, "no vocab_size"),
        ("position_embedding_type", "relative_key", "position_embedding_type is 'relative_key'"),
    ):
        write_json(folder / BASE / "config.json", {**settings, key: value})
        with pytest.raises(RepresentationError, match=message):
            loaded(folder)
    for name in ("../m", "/etc"):
        changed = json.loads(json.dumps(config()).replace(BASE, name))
        write_json(folder / "config.json", changed)
        with pytest.raises(RepresentationError, match="outside of its own folder"):
            loaded(folder)
    write_json(folder / "config.json", json.loads(json.dumps(config()).replace(BASE, "google-bert/bert-base-uncased")))
    with pytest.raises(
        RepresentationError, match="begin with 32, and the states of google-bert/bert-base-uncased are 768 wide"
    ):
        loaded(folder)
    monkeypatch.setitem(layouts.BASES, "google-bert/bert-base-uncased", settings)
    np.testing.assert_allclose(loaded(folder).encode_documents(TEXTS).vectors, expected_vectors(TEXTS), atol=1e-5)


def test_a_bert_base_needs_no_settings_beside_it():
    from transformers import BertConfig

    default = BertConfig()
    assert {name: getattr(default, name) for name in layouts.BERT_BASE} == dict(layouts.BERT_BASE)


def test_other_folders(tmp_path, tiny):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepresentationError, match=r"no config\.json; a Hypencoder's config\.json states"):
        loaded(tmp_path / "empty", kind="hypencoder")
    (folder := hypencoder(tmp_path / "m")).joinpath("tokenizer.json").unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)
    with pytest.raises(RepresentationError, match="no tokenizer: save that of tiny/bert"):
        loaded(folder)
    for options, message in (({"query_length": 65}, "3 to 64 tokens"), ({"document_length": 2}, "3 to 64 tokens")):
        with pytest.raises(ValueError, match=message):
            loaded(tiny, **options)
    with pytest.raises(TypeError, match="hypencoder has no setting"):
        loaded(tiny, kind="hypencoder", pooling="cls")
    with pytest.raises(LexmaxError, match="no model folder"):
        loaded(tmp_path / "none")


@pytest.mark.parametrize(
    ("sizes", "numbers", "message"),
    [
        ((4,), np.zeros((1, 4), np.float32), "one or more hidden layers"),
        ((4, 3, 3), np.zeros((1, 30), np.float32), "all but the last equal"),
        ((4, 3), np.zeros((1, 17), np.float32), r"shape \(n, 18\)"),
        ((4, 3), np.zeros((1, 18)), "float64"),
        ((4, 3), np.full((1, 18), np.nan, np.float32), "query 0 is not"),
    ],
)
def test_networks_that_are_none(sizes, numbers, message):
    with pytest.raises(RepresentationError, match=message):
        QueryNets(sizes, numbers)
    with pytest.raises(RepresentationError, match="0 matrices and 0 biases"):
        QueryNets.of([], [], np.zeros((1, 3), np.float32))


def test_the_oracle_scores_as_the_formulas_do():
    """One hidden layer of a network by hand: relu, then mean 0 and variance 1, then the output."""
    net = [torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, -1.0])]
    scores = expected_scores(net, torch.tensor([[1.0, 1.0], [3.0, -5.0]]))
    # (2, 1) has the mean 1.5 and the variance .25; (4, 0) has 2 and 4
    half, whole = 0.5 / (0.25 + 1e-5) ** 0.5, 2 / (4 + 1e-5) ** 0.5
    np.testing.assert_allclose(scores, [half - 3 * half, whole - 3 * whole], atol=1e-6)
