from __future__ import annotations

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lexmax.index.errors import MissingDependencyError, RepresentationError
from lexmax.retrieval.encoders.networks import masked_lm as backbone
from lexmax.retrieval.encoders.networks.loading import weight_files, weights_digest
from lexmax.retrieval.encoders.networks.masked_lm import MaskedLanguageModel


def logits(network, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return network(input_ids=torch.tensor([ids])).logits[0].numpy()


def activated(x: np.ndarray, activation: str) -> np.ndarray:
    once = np.log1p(np.maximum(x, 0))
    return np.log1p(once) if activation == "log1p_relu" else once


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_weights_equal_the_formula_on_each_text_alone(models, tmp_path, family, pooling, activation):
    folder = models.raw(tmp_path / family, family)
    batch = [[2, 5, 6, 7, 3], [2, 20, 3], [2, *range(5, 40), 3], []]
    found = MaskedLanguageModel(folder).term_weights(batch, pooling=pooling, activation=activation)
    reduce = np.max if pooling == "max" else np.sum
    for row, ids in zip(found[:3], batch, strict=False):
        expected = reduce(activated(logits(models.masked_lm(family), ids), activation), axis=0)
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)
    assert np.count_nonzero(found[:3] == 0) > 0  # the random logits have both signs
    assert not found[3].any()
    assert found.dtype == np.float32


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_masked_positions_with_the_largest_logits_are_ignored(raw, pooling):
    model = MaskedLanguageModel(raw)

    def network(input_ids, attention_mask):
        features = torch.zeros(*input_ids.shape, model._decoder.in_features)
        features[attention_mask == 0] = 1e6
        return SimpleNamespace(logits=features)

    model._network, model.trunk = network, None
    model._decoder.weight.data.abs_()
    model._decoder.bias.data[:] = 2
    found = model.term_weights([[2, 5, 3], [2, 5, 6, 7, 3]], pooling=pooling, activation="relu")
    positions = np.array([[1], [1]]) if pooling == "max" else np.array([[3], [5]])
    np.testing.assert_allclose(found, np.full_like(found, np.log1p(2)) * positions, rtol=1e-6)


def test_blocks_of_terms_do_not_change_the_vector(raw, monkeypatch):
    model, batch = MaskedLanguageModel(raw), [[2, 5, 6, 3], [2, 9, 3]]
    whole = model.term_weights(batch, pooling="max", activation="relu")
    monkeypatch.setattr(backbone, "LOGITS_PER_BLOCK", {"cpu": 1})
    monkeypatch.setattr(backbone, "MIN_TERMS_PER_BLOCK", 5)  # 64 terms: the last block is short
    np.testing.assert_allclose(model.term_weights(batch, pooling="max", activation="relu"), whole, atol=1e-6)


def test_double_logarithm_of_ten():
    found = backbone._activate(torch.tensor([10.0, -1.0]), "log1p_relu")
    np.testing.assert_allclose(found, [np.log1p(np.log1p(10.0)), 0], rtol=1e-6)
    assert found[0].item() == pytest.approx(1.2232, abs=1e-4)


def test_bfloat16_is_near_float32(raw):
    batch = [[2, 5, 6, 7, 3]]
    exact = MaskedLanguageModel(raw).term_weights(batch, pooling="max", activation="relu")
    rounded = MaskedLanguageModel(raw, dtype="bfloat16").term_weights(batch, pooling="max", activation="relu")
    assert 0 < np.abs(exact - rounded).max() < 0.1


def test_old_layer_norm_names_load(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "old")
    path = folder / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor + 0.5
        for name, tensor in load_file(path).items()
    }
    assert any(name.endswith("gamma") for name in old)
    save_file(old, path, metadata={"format": "pt"})
    model = MaskedLanguageModel(folder)
    norm = model.trunk._network.embeddings.LayerNorm
    assert torch.equal(norm.weight, torch.full_like(norm.weight, 1.5))
    assert torch.equal(norm.bias, torch.full_like(norm.bias, 0.5))


def test_old_bin_without_the_tied_decoder_loads(raw, models, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "bin")
    (folder / "model.safetensors").unlink()
    state = {k: v for k, v in models.masked_lm().state_dict().items() if ".decoder." not in k}
    state["bert.embeddings.position_ids"] = torch.arange(64)[None]  # a buffer that old files carry
    torch.save(state, folder / "pytorch_model.bin")
    ids = [2, 5, 6, 3]
    found = MaskedLanguageModel(folder).term_weights([ids], pooling="max", activation="relu")
    expected = activated(logits(models.masked_lm(), ids).max(axis=0), "relu")
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_bin_with_pickled_code_is_refused(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "code")
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return marker.touch, ()

    torch.save({"weight": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(RepresentationError, match="cannot load"):
        MaskedLanguageModel(folder)
    assert not marker.exists()


@pytest.mark.parametrize("dropped", ["cls.predictions", "bert.encoder.layer.1.attention.self.query"])
def test_parameters_left_at_random_are_refused(raw, tmp_path, dropped):
    folder = shutil.copytree(raw, tmp_path / "partial")
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(dropped)}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(RepresentationError, match=f"would stay random.*|{dropped}") as caught:
        MaskedLanguageModel(folder)
    assert dropped in str(caught.value)


def test_untied_decoder_missing_is_refused(models, tmp_path):
    folder = models.raw(tmp_path / "untied", tied=False)
    path = folder / "model.safetensors"
    state = load_file(path)
    del state["cls.predictions.decoder.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(RepresentationError, match="decoder"):
        MaskedLanguageModel(folder)


def test_other_shapes_missing_weights_and_foreign_code_are_refused(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 70}))
    with pytest.raises(RepresentationError, match=r"cannot load|random"):
        MaskedLanguageModel(folder)
    foreign = {"model_type": "new", "auto_map": {"AutoModelForMaskedLM": "modeling.NewForMaskedLM"}}
    (folder / "config.json").write_text(json.dumps(foreign))
    (folder / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(RepresentationError, match="cannot load"):
        MaskedLanguageModel(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(RepresentationError, match="no weights"):
        MaskedLanguageModel(folder)


def test_a_network_that_does_more_after_its_decoder_is_refused(models, raw):
    network = models.masked_lm()
    network.cls.register_forward_hook(lambda module, inputs, output: torch.tanh(output))
    with pytest.raises(RepresentationError, match="does not end in its vocabulary layer"):
        backbone._split_decoder(raw, network)


def test_digest_follows_weights_and_architecture_only(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_version": "9", "_name_or_path": "x"}))
    assert weights_digest(folder) == weights_digest(raw)
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
    assert weights_digest(folder) != weights_digest(raw)
    (folder / "config.json").write_text(json.dumps(config))
    state = load_file(folder / "model.safetensors")
    state["cls.predictions.bias"][0] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert weights_digest(folder) != weights_digest(raw)


def test_shards_are_read_and_hashed(models, tmp_path):
    folder = models.raw(tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    models.masked_lm().save_pretrained(folder, max_shard_size="10KB")
    shards = weight_files(folder)
    assert len(shards) > 1
    ids = [2, 5, 6, 3]
    found = MaskedLanguageModel(folder).term_weights([ids], pooling="max", activation="relu")
    expected = activated(logits(models.masked_lm(), ids).max(axis=0), "relu")
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    before = weights_digest(folder)
    shards[-1].write_bytes(shards[-1].read_bytes()[:-4] + b"\0\0\0\0")
    assert weights_digest(folder) != before


def test_without_torch_the_error_says_what_to_install(raw, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lexmax\[encode\]'"):
        MaskedLanguageModel(raw)
