"""A BERT in 8-bit integers says what the same network says in floats, but for rounding."""

import math
from pathlib import Path

import models
import numpy as np
import pytest
import torch

from lexmax import load_encoder
from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.networks import integer_bert
from lexmax.retrieval.encoders.networks.integer_bert import IntegerBert, IntegerVocabulary
from lexmax.retrieval.encoders.networks.masked_lm import MaskedLanguageModel
from lexmax.retrieval.encoders.networks.token_network import TokenNetwork, TokenRow
from lexmax.retrieval.kernels.bert import ROW_BITS, TOP_SHARE, exponential, gelu, largest_number, layer_norm, softmax

NEAR = 0.999 if ROW_BITS == 8 else 0.997
"""Cosine with the float network."""
LENGTHS = (1, 2, 3, 5, 31, 32, 33, 40)


@pytest.fixture(scope="module")
def network():
    """Two layers of 64 with weights of both signs."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(3)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    made = BertForMaskedLM(
        BertConfig(vocab_size=len(models.VOCABULARY), max_position_embeddings=64, initializer_range=0.15, **sizes)
    )  # fmt: skip
    made.cls.predictions.bias.data.normal_()
    return made.eval()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("integers")
    network.save_pretrained(path)
    models.tokenizer().save_pretrained(path)
    return path


def texts(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(5, len(models.VOCABULARY), n).tolist() for n in LENGTHS]


def cosines(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_states_are_those_of_the_float_network(network):
    integers = IntegerBert(network.base_model, Path("m"))
    for ids, state in zip(texts(), integers.states(texts()), strict=True):
        with torch.inference_mode():
            wanted = network.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        assert state.shape == wanted.shape
        assert cosines(state, wanted).min() > NEAR
    assert [len(state) for state in integers.states([[], [5]])] == [0, 1]


def test_tokens_that_are_not_attended_to_do_not_move_the_others(network):
    integers = IntegerBert(network.base_model, Path("m"))
    ids = texts()[-1]
    (whole,) = integers.states([ids], [20])
    (part,) = integers.states([ids[:20]])
    np.testing.assert_allclose(whole[:20], part, atol=1e-6)
    mask = (torch.arange(len(ids)) < 20).int()[None]
    with torch.inference_mode():
        wanted = network.base_model(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0].numpy()
    assert cosines(whole, wanted).min() > NEAR


def test_threads_change_nothing(network):
    integers = IntegerBert(network.base_model, Path("m"))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = integers.states(texts())
        torch.set_num_threads(4)
        four = integers.states(texts())
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(one, four, strict=True))


@pytest.mark.parametrize("together", [1, 40, 128])
def test_short_texts_that_go_together_get_what_they_get_alone(network, together, monkeypatch):
    monkeypatch.setattr(integer_bert, "TOGETHER", together)
    integers = IntegerBert(network.base_model, Path("m"))
    attended = [max(1, len(ids) // 2) for ids in texts()]
    alone = [integers.states([ids], [n])[0] for ids, n in zip(texts(), attended, strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, integers.states(texts(), attended), strict=True))


def test_pooled_logits_are_exact_for_the_features(network):
    layer = network.get_output_embeddings()
    rng = np.random.default_rng(1)
    features = torch.from_numpy(rng.standard_normal((9, 64)).astype(np.float32))
    pooled = IntegerVocabulary(layer).pooled(features, [4, 0, 5]).numpy()
    steps = layer.weight.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    codes = (layer.weight / steps).round() * steps
    with torch.inference_mode():
        logits = torch.nn.functional.linear(features, codes, layer.bias).relu()
    assert not pooled[1].any()
    for row, part in ((pooled[0], logits[:4]), (pooled[2], logits[4:])):
        wanted = part.amax(0).numpy()
        # Of two tokens whose logits are nearly equal the lower one may be taken.
        np.testing.assert_allclose(row, wanted, atol=0.03)
        assert np.isclose(row, wanted, atol=1e-4).mean() > 0.9


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_term_weights_are_near_those_in_floats(folder, pooling):
    exact, rounded = (MaskedLanguageModel(folder, dtype=dtype) for dtype in ("float32", "int8"))
    wanted, found = (model.term_weights([*texts(), []], pooling=pooling, activation="relu") for model in (exact, rounded))
    assert cosines(found[:-1], wanted[:-1]).min() > 0.998
    assert not found[-1].any()


def test_single_positions_can_be_weighed_too(folder):
    exact, rounded = (
        MaskedLanguageModel(folder, dtype=dtype).top_terms(texts(), 5, n_dropped=1)[1] for dtype in ("float32", "int8")
    )
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def test_an_encoder_in_integers_has_its_own_fingerprint_and_setting(folder):
    exact, rounded = load_encoder(model=str(folder)), load_encoder(model=str(folder), dtype="int8")
    assert rounded.fingerprint != exact.fingerprint
    assert rounded.settings["dtype"] == "int8"
    one, other = (encoder.encode_documents(models.TEXTS[:3]) for encoder in (exact, rounded))
    assert len(one) == len(other) == 3


def test_token_networks_take_integers(network, folder):
    from types import SimpleNamespace

    layout = SimpleNamespace(folder=folder, projections=[])
    rows = [TokenRow(ids=ids, n_attended=max(1, len(ids) - 2), kept=[True] * len(ids)) for ids in texts()]
    exact, rounded = (TokenNetwork(layout, device="cpu", dtype=dtype).vectors(rows) for dtype in ("float32", "int8"))
    for a, b in zip(exact, rounded, strict=True):
        assert cosines(a, b).min() > 0.998


def test_other_networks_sizes_and_devices_are_refused(tmp_path):
    with pytest.raises(RepresentationError, match=r"for BERT encoders with GELU, and model_type is 'distilbert': use float32"):
        MaskedLanguageModel(models.raw(tmp_path / "d", "distilbert"), dtype="int8")
    with pytest.raises(RepresentationError, match="sizes that 32 divides, not 32 and 48"):
        MaskedLanguageModel(models.raw(tmp_path / "b"), dtype="int8")
    with pytest.raises(RepresentationError, match="for the CPU, not for device cuda"):
        MaskedLanguageModel(tmp_path / "b", dtype="int8", device="cuda")


def test_functions_of_floats():
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -0.0, 1e-20]]).astype(np.float32)
    found = x.copy()[None]
    gelu(found)
    np.testing.assert_allclose(found[0], [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x.tolist()], atol=2e-6)
    x = np.linspace(-79, 0, 5000).astype(np.float32)
    np.testing.assert_allclose([exponential(number) for number in x], np.exp(x.astype(np.float64)), rtol=5e-6)
    for low in np.array([-1e30, -200.0, -np.inf], np.float32):
        assert 0 <= exponential(low) < 1e-30


@pytest.mark.parametrize("values", [[-5.0, -3.0, -4.0], [0.0, -0.0], [-1.0, 2.0, 1.5], [7.0], [-2.0]])
def test_the_largest_of_numbers_of_either_sign(values):
    row = np.array(values, np.float32)
    assert largest_number(row) == row.max()


def test_softmax_and_norm_by_hand():
    scores, shares = np.array([0.0, math.log(2), -50.0], np.float32), np.zeros(4, np.uint8)
    half = (TOP_SHARE + 1) // 2
    assert softmax(scores, shares) == half + TOP_SHARE
    assert shares.tolist() == [half, TOP_SHARE, 0, 0]
    x = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    layer_norm(x, np.array([1, 1, 2, 1], np.float32), np.array([0, 0, 0, 1], np.float32), 0.0)
    unit = 1 / math.sqrt(1.25)
    np.testing.assert_allclose(x, [[-1.5 * unit, -0.5 * unit, unit, 1.5 * unit + 1]], rtol=1e-5)
