from __future__ import annotations

import shutil
import string
from pathlib import Path

import pytest

from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.checkpoints.colbert import read_colbert_layout
from lexmax.retrieval.encoders.checkpoints.colbert_layout import Projection, SideFiles
from lexmax.retrieval.encoders.loader import load_model_encoder

GELU = "torch.nn.modules.activation.GELU"


@pytest.fixture
def folder(stanford, tmp_path) -> Path:
    return shutil.copytree(stanford, tmp_path / "model")


@pytest.fixture
def pylate(colbert_models, tmp_path) -> Path:
    return colbert_models.pylate(tmp_path / "pylate")


@pytest.fixture(scope="module")
def saved(colbert_models, tmp_path_factory) -> Path:
    expansion = {"strategy": "fixed", "length": 12}
    return colbert_models.sentence_transformers(tmp_path_factory.mktemp("models") / "native", query_expansion=expansion)


@pytest.fixture
def native(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "native")


def test_stanford_settings_are_read(folder):
    layout = read_colbert_layout(folder)
    assert layout.projections == (Projection(folder=folder, in_features=32, out_features=16),)
    assert layout.document == SideFiles(max_length=20, marker="[unused1]")
    assert layout.query == SideFiles(max_length=12, marker="[unused0]")
    assert (layout.expand_to, layout.attend, layout.expansion_token) == (12, False, "[MASK]")
    assert (layout.skipped, layout.skip_queries) == (tuple(string.punctuation), False)


def test_stanford_defaults(folder, colbert_models):
    colbert_models.write_json(folder / "artifact.metadata", {})
    colbert_models.edit(folder / "config.json", max_position_embeddings=512)
    layout = read_colbert_layout(folder)
    assert (layout.dim, layout.query.max_length, layout.document.max_length) == (128, 32, 220)
    assert (layout.query.marker, layout.document.marker) == ("[unused0]", "[unused1]")


def test_stanford_is_known_by_its_architecture_and_before_its_modules(folder, colbert_models):
    (folder / "artifact.metadata").unlink()
    colbert_models.write_json(folder / "modules.json", [{"path": "", "type": colbert_models.TRANSFORMER}])
    assert read_colbert_layout(folder).projections[0].folder == folder


def test_pylate_settings_are_read(colbert_models, tmp_path):
    denses = [{"out": 24, "bias": True, "residual": True, "activation": GELU}, {"width": 24}]
    folder = colbert_models.pylate(tmp_path / "model", denses, prompts={"query": "[Q] find: "}, attend_to_expansion_tokens=True)
    layout = read_colbert_layout(folder)
    assert layout.projections == (
        Projection(folder=folder / "1_Dense", in_features=32, out_features=24, bias=True, activation="GELU", residual=True),
        Projection(folder=folder / "2_Dense", in_features=24, out_features=16),
    )
    assert layout.query == SideFiles(max_length=12, marker="[Q] ", prompt="find: ")
    assert (layout.dim, layout.attend, layout.expand_to) == (16, True, 12)


def test_pylate_defaults(pylate, colbert_models):
    colbert_models.write_json(pylate / "config_sentence_transformers.json", {"model_type": "ColBERT"})
    colbert_models.edit(pylate / "config.json", max_position_embeddings=512)
    layout = read_colbert_layout(pylate)
    assert layout.query == SideFiles(max_length=32, marker="[Q] ")
    assert layout.document == SideFiles(max_length=180, marker="[D] ")
    assert (layout.expand_to, layout.attend, layout.skipped) == (32, False, tuple(string.punctuation))


def test_native_settings_are_read(native):
    layout = read_colbert_layout(native)
    assert [projection.residual for projection in layout.projections] == [True, False]
    assert layout.query == SideFiles(max_length=12, prompt="[unused0] ")
    assert layout.document == SideFiles(max_length=20, prompt="[unused1] ")


def test_lengths_stop_at_the_models_positions(folder, colbert_models):
    colbert_models.edit(folder / "artifact.metadata", doc_maxlen=300, query_maxlen=100)
    layout = read_colbert_layout(folder)
    assert (layout.document.max_length, layout.query.max_length, layout.expand_to) == (64, 64, 64)


@pytest.mark.parametrize(
    ("file", "changes", "found"),
    [
        ("modules.json", [], r"modules \(none\)"),
        ("modules.json", ["Transformer"], "modules Transformer;"),
        ("modules.json", ["Transformer", "Pooling", "Dense"], "Transformer > Pooling > Dense"),
        ("1_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Softmax"}, "Softmax'"),
        ("1_Dense/config.json", {"activation_function": "evil.Identity"}, "evil.Identity'"),
        ("1_Dense/config.json", {"activation_function": None}, "activation_function 'None'"),
        ("1_Dense/config.json", {"module_input_name": "sentence_embedding"}, "from 'sentence_embedding'"),
        ("1_Dense/config.json", {"in_features": 31}, "31 inputs, after vectors of 32"),
        ("1_Dense/config.json", {"out_features": None}, "no in_features and out_features"),
        ("config_sentence_transformers.json", {"query_expansion": {"strategy": "fixed"}}, "with query_expansion"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task 'fill-mask'"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {}}}, "processing_kwargs"),
        ("config.json", {"is_encoder_decoder": True}, "an encoder-decoder network"),
    ],
)
def test_what_pylate_does_not_save_is_refused(pylate, colbert_models, file, changes, found):
    if isinstance(changes, dict):
        colbert_models.edit(pylate / file, **changes)
    else:
        colbert_models.write_json(
            pylate / file, [{"path": "", "type": f"sentence_transformers.models.{name}"} for name in changes]
        )
    with pytest.raises(RepresentationError, match=found):
        load_model_encoder(str(pylate))


@pytest.mark.parametrize(
    ("file", "changes", "found"),
    [
        ("3_MultiVectorMask/config.json", {"keep_only_token_ids": [5]}, "MultiVectorMask with"),
        ("3_MultiVectorMask/config.json", {"skiplist_tasks": ["query"]}, "MultiVectorMask with"),
        ("4_Normalize/config.json", {"module_input_name": None}, "a Normalize of 'sentence_embedding'"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "max", "length": 3}}, "'strategy': 'max'"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "min"}}, "'strategy': 'min'"),
        ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "modality_config"),
        ("config_sentence_transformers.json", {"query_prefix": "[Q] "}, "PyLate's settings query_prefix"),
    ],
)
def test_unknown_settings_of_sentence_transformers_are_refused(native, colbert_models, file, changes, found):
    colbert_models.edit(native / file, **changes)
    with pytest.raises(RepresentationError, match=found):
        load_model_encoder(str(native))


@pytest.mark.parametrize(
    "names",
    [
        ["Transformer", "Dense", "MultiVectorMask"],
        ["Transformer", "MultiVectorMask", "Normalize", "HierarchicalTokenPooling"],
        ["Router", "MultiVectorMask", "Normalize"],
        ["MultiVectorMask"],
    ],
)
def test_other_chains_of_sentence_transformers_are_refused(native, colbert_models, names):
    colbert_models.write_json(
        native / "modules.json", [{"path": "", "type": f"sentence_transformers.models.{name}"} for name in names]
    )
    with pytest.raises(RepresentationError, match=f"of the modules {' > '.join(names)};"):
        load_model_encoder(str(native))


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(RepresentationError, match="merged into its base model"):
        load_model_encoder(str(folder))


def test_a_marker_that_the_tokenizer_does_not_know_is_refused(folder, colbert_models):
    colbert_models.edit(folder / "artifact.metadata", **{"query_token_id": "[QueryMarker]"})
    with pytest.raises(RepresentationError, match=r"no token '\[QueryMarker\]', the checkpoint's marker"):
        load_model_encoder(str(folder))


def test_an_expansion_token_that_the_tokenizer_does_not_know_is_refused(native, colbert_models):
    expansion = {"strategy": "fixed", "length": 12, "token": "<mask>"}
    colbert_models.edit(native / "sentence_bert_config.json", query_expansion=expansion)
    with pytest.raises(RepresentationError, match=r"no token '<mask>', the checkpoint's expansion token"):
        load_model_encoder(str(native))
    assert load_model_encoder(str(native), query_expansion=False).encode_queries(["sun"]).n_tokens == 4


def test_the_tokenizer_of_another_model_is_refused(folder, colbert_models):
    colbert_models.edit(folder / "config.json", vocab_size=20)
    with pytest.raises(RepresentationError, match="put the tokenizer files of this model"):
        load_model_encoder(str(folder))


def test_kinds_do_not_take_each_others_checkpoints(raw, folder, pylate, native):
    with pytest.raises(RepresentationError, match=r"\['BertForMaskedLM'\] and modules \(none\); lexmax takes a Stanford"):
        load_model_encoder(str(raw), kind="colbert")
    for checkpoint in (folder, pylate, native):
        for kind in ("splade", "inference-free"):
            with pytest.raises(RepresentationError, match="which is kind='colbert'"):
                load_model_encoder(str(checkpoint), kind=kind)


def test_a_folder_without_a_network_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(RepresentationError, match=r"no config\.json"):
        load_model_encoder(str(folder))
