"""Dense models against sentence-transformers, on tiny random checkpoints that it saved itself."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch
from models import TEXTS, raw, write_json

from lexmax.index.errors import LexmaxError, RepresentationError
from lexmax.retrieval.encoders.loader import load_model_encoder

sentence_transformers = import_module("sentence_transformers")
PROMPTS = {"query": "search for: ", "document": "text: "}


class Arrays:
    """An encoder whose vectors come as arrays."""

    def __init__(self, encoder):
        self._encoder, self.fingerprint, self.dim = encoder, encoder.fingerprint, encoder.dim

    def encode_documents(self, texts):
        return self._encoder.encode_documents(texts).vectors

    def encode_queries(self, texts):
        return self._encoder.encode_queries(texts).vectors


def loaded(folder, **options):
    return Arrays(load_model_encoder(folder, kind="dense", **options))


def saved(folder, pooling="mean", *, dense=None, normalize=False, family="bert", lengths=None, **card):
    """A model that sentence-transformers saved, and the model."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    source = raw(folder.with_name(folder.name + "-source"), family)
    lengths = lengths or {"max_seq_length": 16}
    modules = [Transformer(str(source), transformer_task="feature-extraction", **lengths), Pooling(32, pooling)]
    if dense is not None:
        torch.manual_seed(3)
        modules.append(Dense(32, 12, activation_function=dense))
    if normalize:
        modules.append(Normalize())
    model = sentence_transformers.SentenceTransformer(modules=modules, device="cpu", **card)
    model.save(str(folder))
    return model


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_poolings(pooling, family, tmp_path):
    model = saved(tmp_path / "m", pooling, family=family, prompts=PROMPTS, similarity_fn_name="dot")
    encoder = loaded(str(tmp_path / "m"), batch_size=3)
    assert encoder.dim == 32
    for ours, theirs in ((encoder.encode_documents, model.encode_document), (encoder.encode_queries, model.encode_query)):
        np.testing.assert_allclose(ours(TEXTS), theirs(TEXTS), atol=1e-5)
    assert np.abs(encoder.encode_documents(TEXTS) - encoder.encode_queries(TEXTS)).max() > 0.01  # prompts count


@pytest.mark.parametrize("activation", [torch.nn.Identity(), torch.nn.Tanh()])
def test_dense_layers_and_unit_length(activation, tmp_path):
    model = saved(tmp_path / "m", dense=activation, normalize=True, prompts=PROMPTS, default_prompt_name="query")
    encoder = loaded(str(tmp_path / "m"))
    assert encoder.dim == 12
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), model.encode_document(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), model.encode_query(TEXTS), atol=1e-5)


def test_inner_products_are_the_models_similarity(tmp_path):
    model = saved(tmp_path / "m")  # without Normalize, and compared by the cosine
    encoder = loaded(str(tmp_path / "m"))
    found = encoder.encode_queries(TEXTS[:2]) @ encoder.encode_documents(TEXTS).T
    expected = model.similarity(model.encode_query(TEXTS[:2]), model.encode_document(TEXTS))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("lengths", [{"query_length": 5, "document_length": 7}, {"max_seq_length": 9, "query_length": 5}])
def test_lengths_of_each_side(lengths, tmp_path):
    model = saved(tmp_path / "m", lengths=lengths)
    encoder = loaded(str(tmp_path / "m"))
    documents, queries = encoder.encode_documents(TEXTS), encoder.encode_queries(TEXTS)
    np.testing.assert_allclose(documents, model.encode_document(TEXTS, normalize_embeddings=True), atol=1e-5)
    np.testing.assert_allclose(queries, model.encode_query(TEXTS, normalize_embeddings=True), atol=1e-5)
    assert np.abs(documents - queries).max() > 0.01


def test_poolings_by_flags(tmp_path):
    """As checkpoints of before sentence-transformers 6 have them."""
    model = saved(tmp_path / "m", "cls")
    write_json(tmp_path / "m" / "1_Pooling" / "config.json", {
        "word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False,
    })  # fmt: skip
    vectors = loaded(str(tmp_path / "m")).encode_documents(TEXTS)
    np.testing.assert_allclose(vectors, model.encode_document(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_settings_change_vectors_and_the_fingerprint(tmp_path):
    saved(tmp_path / "m", prompts=PROMPTS)
    encoder = loaded(str(tmp_path / "m"))
    bare = loaded(str(tmp_path / "m"), query_prompt="")
    assert np.abs(bare.encode_queries(TEXTS) - encoder.encode_queries(TEXTS)).max() > 0.01
    np.testing.assert_array_equal(bare.encode_documents(TEXTS), encoder.encode_documents(TEXTS))
    short = loaded(str(tmp_path / "m"), document_length=5, document_prompt="")
    np.testing.assert_allclose(
        short.encode_documents(["the rain in ny now"]), short.encode_documents(["the rain in"]), atol=1e-6
    )
    half = loaded(str(tmp_path / "m"), dtype="bfloat16")
    np.testing.assert_allclose(half.encode_documents(TEXTS), encoder.encode_documents(TEXTS), atol=0.05)
    assert len({each.fingerprint for each in (encoder, bare, short, half)}) == 4
    assert loaded(str(tmp_path / "m"), batch_size=1).fingerprint == encoder.fingerprint
    assert encoder.fingerprint.startswith("dense:")
    assert encoder.encode_documents([]).shape == (0, 32)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [], "no modules.json"),
        (
            "modules.json",
            [
                {"type": "sentence_transformers.models.Transformer", "path": ""},
                {"type": "sentence_transformers.models.SpladePooling", "path": "1"},
            ],
            "> SpladePooling",
        ),
        (
            "modules.json",
            [
                {"type": "sentence_transformers.models.Transformer", "path": ".."},
                {"type": "sentence_transformers.models.Pooling", "path": "1"},
            ],
            "outside",
        ),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "Pooling by cls and mean"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "Pooling by lasttoken"),
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "Pooling by weightedmean"),
        ("1_Pooling/config.json", {"pooling_mode": "cls", "include_prompt": False}, "leaves out the prompt"),
        ("2_Dense/config.json", {"in_features": 32, "out_features": 12, "use_residual": True}, "use_residual"),
        ("2_Dense/config.json", {"in_features": 32, "out_features": 12, "activation_function": "torch.nn.ReLU"}, "ReLU"),
        ("2_Dense/config.json", {"in_features": 31, "out_features": 12}, "31 inputs, after vectors of 32"),
        ("2_Dense/config.json", {}, "no in_features"),
        ("3_Normalize/config.json", {"module_input_name": "token_embeddings"}, "token_embeddings"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "euclidean"}, "similarity_fn_name 'euclidean'"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task 'fill-mask'"),
        ("config.json", {}, r"no config\.json in"),
        ("config.json", {"is_encoder_decoder": True}, "encoder-decoder"),
        ("adapter_config.json", {}, "PEFT"),
    ],
)
def test_other_models_are_refused(file, content, message, tmp_path):
    saved(tmp_path / "m", dense=torch.nn.Tanh(), normalize=True)
    assert loaded(str(tmp_path / "m")).dim == 12  # it is the changed file that is refused
    write_json(tmp_path / "m" / file, content)
    with pytest.raises(RepresentationError, match=message):
        loaded(str(tmp_path / "m"))


def test_weights_of_another_shape(tmp_path):
    saved(tmp_path / "m", dense=torch.nn.Tanh())
    path = tmp_path / "m" / "2_Dense" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "out_features": 13}))
    with pytest.raises(RepresentationError, match=r"linear\.weight, linear\.bias not there"):
        loaded(str(tmp_path / "m")).encode_documents(["rain"])


def test_options_that_make_no_sense(tmp_path):
    saved(tmp_path / "m")
    for options, message in (
        ({"query_length": 65}, "3 to 64 tokens"),
        ({"document_length": 2}, "3 to 64 tokens"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"dtype": "float16"}, "dtype takes float32 or bfloat16 or int8, not 'float16'"),
    ):
        with pytest.raises(ValueError, match=message):
            loaded(str(tmp_path / "m"), **options)
    with pytest.raises(TypeError, match=r"dense has no setting .k1.: there are document_length"):
        loaded(str(tmp_path / "m"), k1=1)
    with pytest.raises(LexmaxError, match="no model folder"):
        loaded(str(tmp_path / "none"))


@pytest.mark.parametrize("normalize", [False, True])
def test_documents_of_several_vectors_have_the_states_of_their_first_tokens(tmp_path, normalize):
    """ME-BERT's form: the first m states of a document, that of [CLS] of a query, through the same layers."""
    model = saved(tmp_path / "m", "cls", dense=torch.nn.Tanh(), normalize=normalize, similarity_fn_name="dot")
    encoder = load_model_encoder(str(tmp_path / "m"), kind="dense", vectors_per_doc=4, batch_size=3)
    plain = load_model_encoder(str(tmp_path / "m"), kind="dense")
    assert (encoder.dim, encoder.vectors_per_doc) == (12, 4)
    found = encoder.encode_documents(TEXTS).vectors.reshape(len(TEXTS), 4, 12)
    for text, vectors in zip(TEXTS, found, strict=True):
        inputs = model.tokenizer([text], return_tensors="pt", truncation=True, max_length=16)
        with torch.no_grad():
            states = model[0].auto_model(**inputs).last_hidden_state[0]
            expected = model[2].activation_function(model[2].linear(states))
            if normalize:
                expected = torch.nn.functional.normalize(expected, dim=-1)
        n = min(4, len(expected))
        np.testing.assert_allclose(vectors[:n], expected[:n].numpy(), atol=1e-5)
        np.testing.assert_array_equal(vectors[n:], np.repeat(vectors[:1], 4 - n, axis=0))
    assert len(model.tokenizer("")["input_ids"]) < 4  # TEXTS has the empty text
    np.testing.assert_allclose(encoder.encode_queries(TEXTS).vectors, plain.encode_queries(TEXTS).vectors, atol=1e-6)
    assert encoder.encode_documents([]).vectors.shape == (0, 48)
    assert encoder.fingerprint != plain.fingerprint


def test_several_vectors_are_for_models_that_take_cls(tmp_path):
    saved(tmp_path / "m", "mean")
    with pytest.raises(RepresentationError, match="vectors_per_doc=2 is for cls pooling, and this model's is mean"):
        load_model_encoder(str(tmp_path / "m"), kind="dense", vectors_per_doc=2)
    for wrong in (0, 65):
        with pytest.raises(ValueError, match=f"vectors_per_doc is {wrong}: it must be 1 to 64"):
            load_model_encoder(str(tmp_path / "m"), kind="dense", vectors_per_doc=wrong)


def test_an_index_of_several_vectors_per_document(tmp_path):
    """Built, searched with an explanation, and opened again with its encoder."""
    from lexmax import Document, Retriever, build_index

    saved(tmp_path / "m", "cls", similarity_fn_name="dot")
    spec = f"{tmp_path / 'm'},vectors_per_doc=3,keep=float32"
    documents = [Document(doc_id=str(i), text=text) for i, text in enumerate(TEXTS)]
    build_index(documents=documents, out=tmp_path / "idx", encoders={"me": spec})
    encoder = load_model_encoder(str(tmp_path / "m"), kind="dense", vectors_per_doc=3)
    products = encoder.encode_documents(TEXTS).vectors.reshape(-1, 3, 32) @ encoder.encode_queries(["rain"]).vectors[0]
    scores = products.max(axis=1)
    found = Retriever.open(tmp_path / "idx").search("rain", k=4, search="me", explain=True)
    assert [hit.doc_id for hit in found] == [str(i) for i in np.argsort(-scores, kind="stable")[:4]]
    for hit in found:
        field = hit.explanation.stages[0].fields[0]
        assert field.vector == products[int(hit.doc_id)].argmax()
        assert field.score == pytest.approx(scores[int(hit.doc_id)], abs=1e-4)
        assert len(field.sentences) > 0 or not TEXTS[int(hit.doc_id)]
