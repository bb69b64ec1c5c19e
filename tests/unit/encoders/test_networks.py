"""Networks of many families: how long a text may be, and that a text's vectors do not depend on the texts beside it."""

from pathlib import Path

import models
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from lexmax import load_encoder
from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.checkpoints.files import NO_LIMIT, read_json
from lexmax.retrieval.encoders.checkpoints.transformer import length_limit, probed_limit
from lexmax.retrieval.encoders.networks.masked_lm import MaskedLanguageModel, _split_decoder
from lexmax.retrieval.encoders.networks.trunk import MASKING, Row, Trunk

N_TERMS = len(models.VOCABULARY)
SIZES = {
    "vocab_size": N_TERMS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "initializer_range": 0.3,
}  # fmt: skip
OWN_SIZES = {
    "albert": {"embedding_size": 16},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "conv_kernel_size": 3, "conv_act": "gelu"},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "longformer": {"attention_window": [4, 4]},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 6, "pad_token_id": 0, "initializer_cutoff_factor": 3.0},
    "mpnet": {"pad_token_id": 1},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"},
    "big_bird": {"attention_type": "original_full"},
    "convbert": {"embedding_size": 16, "conv_kernel_size": 3},
    "squeezebert": {"embedding_size": 32, "q_groups": 1, "k_groups": 1, "v_groups": 1},
    "nystromformer": {"conv_kernel_size": 3},
}
FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xmod", "data2vec-text", "roberta-prelayernorm",
                "xlm-roberta-xl")  # fmt: skip
FROM_ZERO = ("bert", "distilbert", "electra", "albert", "big_bird", "ernie", "convbert")
UNKNOWN = ("big_bird", "convbert", "fnet", "longformer", "nystromformer", "roformer", "squeezebert", "xmod")


def config_of(family: str, **changes):
    return AutoConfig.for_model(family, **{**SIZES, "max_position_embeddings": 40, **OWN_SIZES.get(family, {}), **changes})


def network_of(family: str, auto=AutoModel, **changes):
    torch.manual_seed(4)
    return auto.from_config(config_of(family, **changes)).eval()


def texts(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(sum(lengths))
    return [rng.integers(5, N_TERMS, n).tolist() for n in lengths]


@pytest.mark.parametrize("padding", [None, 0, 3])
@pytest.mark.parametrize("family", [*FROM_PADDING, *FROM_ZERO])
def test_the_limit_is_the_longest_text_that_the_network_reads(family, padding, tmp_path):
    changes = {} if padding is None else {"pad_token_id": padding}
    network = network_of(family, **changes)
    network.config.save_pretrained(tmp_path)
    stated = read_json(tmp_path / "config.json")
    limit = length_limit(tmp_path, stated)
    assert limit == probed_limit(tmp_path)
    assert 30 < limit <= 40
    assert (limit == 40) == (family in FROM_ZERO)
    if padding is None:
        assert length_limit(tmp_path, {key: value for key, value in stated.items() if key != "pad_token_id"}) == limit
    with torch.inference_mode():
        network(input_ids=torch.tensor(texts(limit)))
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            network(input_ids=torch.tensor(texts(limit + 1)))


def test_networks_without_a_table_of_positions(tmp_path):
    config_of("modernbert", max_position_embeddings=77).save_pretrained(tmp_path / "stated")
    assert probed_limit(tmp_path / "stated") == 77
    AutoConfig.for_model("xlnet", d_model=32, n_layer=1, n_head=2, d_inner=48, vocab_size=N_TERMS).save_pretrained(
        tmp_path / "none"
    )
    assert length_limit(tmp_path / "none", read_json(tmp_path / "none" / "config.json")) == NO_LIMIT
    models.write_json(tmp_path / "own" / "config.json", {"model_type": "own", "max_position_embeddings": 512})
    with pytest.raises(RepresentationError, match="transformers cannot make a network of config"):
        length_limit(tmp_path / "own", {"model_type": "own", "max_position_embeddings": 512})


@pytest.mark.parametrize("family", ["roberta-prelayernorm", "data2vec-text", "longformer", "xmod", "mpnet", "camembert"])
def test_a_text_of_the_longest_kind_is_encoded_as_transformers_would(family, tmp_path):
    """Padding id 0 is the tokenizer's; a text of 60 words is cut at the limit."""
    network = network_of(family, AutoModelForMaskedLM, pad_token_id=0)
    network.save_pretrained(tmp_path)
    models.tokenizer().save_pretrained(tmp_path)
    encoder = load_encoder(model=str(tmp_path))
    text = " ".join(models.VOCABULARY[5:] * 2)
    ids = encoder._wordpieces.encode([text], max_length=encoder._document_side.max_length)
    assert len(ids[0]) == length_limit(tmp_path, read_json(tmp_path / "config.json"))
    found = np.zeros(N_TERMS, np.float32)
    terms, weights = encoder.encode_documents([text, "sun"]).row(0)
    found[terms] = weights
    with torch.inference_mode():
        logits = network(input_ids=torch.tensor(ids), attention_mask=torch.ones(1, len(ids[0]), dtype=torch.long)).logits
    np.testing.assert_allclose(found, logits[0].amax(0).relu().log1p().numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="tokens at most"):
        load_encoder(model=str(tmp_path), document_max_length=len(ids[0]) + 1)


def alone_and_together(run, rows) -> list[tuple[np.ndarray, np.ndarray]]:
    """Results of each text alone, and: in a batch, in another order, beside a long text."""
    alone = [run([row])[0] for row in rows]
    pairs = list(zip(alone, run(rows), strict=True))
    pairs += zip(alone[::-1], run(rows[::-1]), strict=True)
    long = max(rows, key=len)
    for own, row in zip(alone, rows, strict=True):
        pairs.append((own, run([long, row, long])[1]))
    return pairs


@pytest.mark.parametrize("family", [*sorted(MASKING), *UNKNOWN])
def test_states_do_not_depend_on_neighbours(family):
    trunk = Trunk(network_of(family), Path("m"), device="cpu", dtype="float32")
    assert trunk.masks == (family in MASKING)
    rows = [Row(tuple(ids), len(ids)) for ids in texts(3, 9, 4, 30, 9, 1)]
    for alone, together in alone_and_together(lambda some: [each.numpy() for each in trunk.states(some)], rows):
        np.testing.assert_allclose(together, alone, atol=1e-5)
    with torch.inference_mode():
        ids = torch.tensor([rows[1].ids])
        wanted = trunk._network(input_ids=ids, attention_mask=torch.ones_like(ids))[0][0].numpy()
    np.testing.assert_allclose(trunk.states(rows)[1].numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("family", ["fnet", "convbert", "roformer"])
def test_whole_masked_language_models_do_not_depend_on_neighbours(family, tmp_path):
    network_of(family, AutoModelForMaskedLM).save_pretrained(tmp_path)
    model = MaskedLanguageModel(tmp_path)
    rows = texts(3, 9, 4, 30)
    taken_apart = model.term_weights(rows, pooling="max", activation="relu")
    whole = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    _split_decoder(tmp_path, whole)
    model.trunk, model._network = None, whole  # as where head and trunk do not come apart
    np.testing.assert_allclose(model.term_weights(rows, pooling="max", activation="relu"), taken_apart, atol=1e-5)
    for alone, together in alone_and_together(lambda some: model.term_weights(some, pooling="max", activation="relu"), rows):
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_network_that_wants_more_than_token_ids_is_refused(tmp_path):
    network_of("xmod", AutoModelForMaskedLM, default_language=None).save_pretrained(tmp_path)
    models.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(RepresentationError, match="XmodForMaskedLM does not run on token ids alone: Input language unknown"):
        load_encoder(model=str(tmp_path))


def test_a_network_of_random_states_is_refused():
    network = network_of("fnet")
    network.register_forward_hook(lambda *_: (torch.randn(3),))
    with pytest.raises(RepresentationError, match="FNetModel gives a text other states each time"):
        Trunk(network, Path("m"), device="cpu", dtype="float32")


def test_a_big_bird_that_changes_its_attention_with_the_texts_is_refused(tmp_path):
    network_of("big_bird", AutoModelForMaskedLM, attention_type="block_sparse").save_pretrained(tmp_path)
    models.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(RepresentationError, match="attention_type: found sparse attention"):
        load_encoder(model=str(tmp_path))


def of_encoder(kind: str, tmp_path: Path, colbert_models, dtype: str):
    """Both sides of an encoder as functions of texts that give one array per text."""
    wide = {"hidden_size": 64, "intermediate_size": 96, "initializer_range": 0.1, "max_position_embeddings": 64}
    network_of("bert", AutoModelForMaskedLM, **wide).save_pretrained(tmp_path / "m")
    models.tokenizer().save_pretrained(tmp_path / "m")
    if kind == "inference-free":
        models.write_json(tmp_path / "m" / "idf.json", {"sun": 2.0, "the": 0.5})
    if kind == "colbert":
        colbert_models.write_dense(tmp_path / "m" / "1_Dense", 64, 16)
        types = [{"path": "", "type": "sentence_transformers.models.Transformer"},
                 {"path": "1_Dense", "type": "pylate.models.Dense.Dense"}]  # fmt: skip
        models.write_json(tmp_path / "m" / "modules.json", types)
        card = {"model_type": "ColBERT", "query_prefix": "", "document_prefix": "", "query_length": 16}
        models.write_json(tmp_path / "m" / "config_sentence_transformers.json", card)
    if kind == "dense":
        types = [{"path": "", "type": "sentence_transformers.models.Transformer"},
                 {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]  # fmt: skip
        models.write_json(tmp_path / "m" / "modules.json", types)
        models.write_json(tmp_path / "m" / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    encoder = load_encoder(kind, model=str(tmp_path / "m"), dtype=dtype)

    def arrays(vectors):
        if kind in ("colbert", "dense"):
            return [vectors.row(i) for i in range(len(vectors))]
        rows = [vectors.row(i) for i in range(len(vectors))]
        if kind == "slim":
            return [np.sort(row.weights) for row in rows]
        filled = np.zeros((len(rows), N_TERMS), np.float32)
        for line, (terms, weights) in zip(filled, rows, strict=True):
            line[terms] = weights
        return list(filled)

    return [lambda some: arrays(encoder.encode_documents(some)), lambda some: arrays(encoder.encode_queries(some))]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kind", ["splade", "inference-free", "colbert", "slim", "dense"])
def test_vectors_do_not_depend_on_neighbours(kind, dtype, tmp_path, colbert_models):
    tolerance = {"float32": 1e-5, "bfloat16": 0.05, "int8": 1e-6}[dtype]
    for run in of_encoder(kind, tmp_path, colbert_models, dtype):
        for alone, together in alone_and_together(run, [text for text in models.TEXTS if text]):
            assert alone.shape == together.shape or (kind == "slim" and dtype == "bfloat16")
            if alone.shape == together.shape:
                np.testing.assert_allclose(together, alone, atol=tolerance)
