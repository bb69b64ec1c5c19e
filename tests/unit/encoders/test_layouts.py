from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lexmax.index.errors import RepresentationError
from lexmax.retrieval.encoders.checkpoints.splade import TableFiles, TowerFiles, read_layout


@pytest.fixture
def folder(raw, tmp_path) -> Path:
    return shutil.copytree(raw, tmp_path / "model")


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))


def test_raw_model_is_max_relu_of_256_tokens_or_as_many_as_it_reads(folder, models):
    layout = read_layout(folder)
    assert layout.document == layout.query
    assert layout.document == TowerFiles(
        folder=folder, tokenizer=folder, pooling="max", activation="relu",
        n_terms=len(models.VOCABULARY), max_length=64, length_limit=64,
    )  # fmt: skip
    edit(folder / "config.json", max_position_embeddings=512)
    assert (read_layout(folder).document.max_length, read_layout(folder).document.length_limit) == (256, 512)


def test_roberta_has_fewer_positions_than_rows(folder):
    edit(folder / "config.json", model_type="roberta", max_position_embeddings=514, pad_token_id=1)
    assert read_layout(folder).document.length_limit == 512


def test_pooling_prompts_lengths_and_top_k_are_read(models, tmp_path):
    folder = models.sentence_transformers_5(
        tmp_path / "v5", pooling="sum", activation="log1p_relu", max_seq_length=20, do_lower_case=True
    )
    edit(
        folder / "config_sentence_transformers.json",
        prompts={"query": "query: ", "passage": "passage: "}, max_active_dims=7,
    )  # fmt: skip
    layout = read_layout(folder)
    assert (layout.document.pooling, layout.document.activation) == ("sum", "log1p_relu")
    assert (layout.document.max_length, layout.document.lowercase) == (20, True)
    assert (layout.query_prompt, layout.document_prompt, layout.top_k) == ("query: ", "passage: ", 7)


def test_version_6_takes_its_length_from_the_tokenizer(models, tmp_path):
    folder = models.sentence_transformers_6(tmp_path / "v6")
    edit(folder / "tokenizer_config.json", model_max_length=33)
    assert read_layout(folder).document.max_length == 33


@pytest.mark.parametrize("config", [{"pooling_strategy": "max"}, {"pooling_strategy": "mean", "activation_function": "relu"}])
def test_pooling_is_never_guessed(models, tmp_path, config):
    folder = models.sentence_transformers_5(tmp_path / "v5")
    models.write_json(folder / "1_SpladePooling" / "config.json", config)
    with pytest.raises(RepresentationError, match="neither is guessed"):
        read_layout(folder)


def test_router_with_the_document_network_in_the_root(models, tmp_path):
    folder = models.router_with_towers(tmp_path / "towers")
    layout = read_layout(folder)
    assert layout.document.folder == folder
    assert isinstance(layout.query, TowerFiles)
    assert layout.query.folder == folder / "query_0_MLMTransformer"


def test_asym_of_older_versions_keeps_its_routes_in_config_json(models, tmp_path):
    folder = models.router_with_towers(tmp_path / "towers")
    (folder / "0_Asym").mkdir()
    for name in ("query_0_MLMTransformer", "query_1_SpladePooling", "document_1_SpladePooling"):
        shutil.move(folder / name, folder / "0_Asym" / name)
    shutil.copytree(folder / "0_Asym" / "query_0_MLMTransformer", folder / "0_Asym" / "document_0_MLMTransformer")
    router = (folder / "router_config.json").read_text().replace('""', '"document_0_MLMTransformer"')
    (folder / "router_config.json").unlink()
    (folder / "0_Asym" / "config.json").write_text(router)
    module = {"path": "0_Asym", "type": "sentence_transformers.models.Asym"}
    models.write_json(folder / "modules.json", [module])
    assert read_layout(folder).document.folder == folder / "0_Asym" / "document_0_MLMTransformer"


def test_modules_after_a_router_serve_both_routes(models, tmp_path):
    folder = models.router_with_towers(tmp_path / "towers")
    models.write_router(
        folder,
        {"": f"{models.V5}.MLMTransformer", "query_0_MLMTransformer": f"{models.V5}.MLMTransformer"},
        query=["query_0_MLMTransformer"],
        document=[""],
    )
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "document_1_SpladePooling", "type": f"{models.V5}.SpladePooling"})
    models.write_json(folder / "modules.json", modules)
    layout = read_layout(folder)
    assert layout.document.folder == folder
    assert layout.query.pooling == "max"


def test_idf_in_the_root_makes_a_table(models, tmp_path):
    folder = models.with_idf(tmp_path / "idf", {"sun": 2.0})
    assert read_layout(folder).query == TableFiles(weights=folder / "idf.json", tokenizer=folder, max_length=64)


def test_idf_beside_splade_pooling_keeps_the_pooling(models, tmp_path):
    folder = models.sentence_transformers_5(tmp_path / "v5", activation="log1p_relu")
    models.write_json(folder / "idf.json", {"sun": 2.0})
    layout = read_layout(folder)
    assert isinstance(layout.query, TableFiles)
    assert layout.document.activation == "log1p_relu"


def test_a_hypencoder_is_refused(folder):
    edit(folder / "config.json", architectures=["HypencoderDualEncoder"])
    with pytest.raises(RepresentationError, match=r"found a Hypencoder; lexmax takes a \*ForMaskedLM"):
        read_layout(folder)


@pytest.mark.parametrize("sign", ["artifact.metadata", "HF_ColBERT"])
def test_a_stanford_colbert_is_refused_whatever_its_modules_say(models, tmp_path, sign):
    folder = models.sentence_transformers_5(tmp_path / "v5")
    if sign == "HF_ColBERT":
        edit(folder / "config.json", architectures=["HF_ColBERT"])
    else:
        (folder / sign).write_text("{}")
    with pytest.raises(RepresentationError, match="Stanford ColBERT"):
        read_layout(folder)


@pytest.mark.parametrize("model_type", ["ColBERT", "MultiVectorEncoder"])
def test_multi_vector_models_are_refused(folder, model_type):
    edit(folder / "config_sentence_transformers.json", model_type=model_type)
    with pytest.raises(RepresentationError, match="multi-vector"):
        read_layout(folder)


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (["Transformer", "Pooling"], "a dense model"),
        (["Transformer", "Pooling", "SparseAutoEncoder"], "Transformer > Pooling > SparseAutoEncoder"),
        (["Transformer", "Dense"], "Transformer > Dense"),
        (["Transformer"], "the modules Transformer;"),
        (["SparseStaticEmbedding"], "a static token table on the document side"),
    ],
)
def test_other_module_chains_are_refused_by_name(models, folder, classes, found):
    types = [{"path": "", "type": f"sentence_transformers.models.{name}"} for name in classes]
    models.write_json(folder / "modules.json", types)
    with pytest.raises(RepresentationError, match=found):
        read_layout(folder)


def test_routes_other_than_query_and_document_are_refused(models, tmp_path):
    folder = models.router_with_towers(tmp_path / "towers")
    text = (folder / "router_config.json").read_text().replace('"query"', '"text"')
    (folder / "router_config.json").write_text(text)
    with pytest.raises(RepresentationError, match=r"a Router with routes \['document', 'text'\]"):
        read_layout(folder)


def test_no_masked_language_model_is_refused(folder, tmp_path):
    edit(folder / "config.json", architectures=["BertModel"])
    with pytest.raises(RepresentationError, match=r"architectures \['BertModel'\]"):
        read_layout(folder)
    with pytest.raises(RepresentationError, match=r"no config\.json"):
        read_layout(tmp_path)


def test_a_transformer_for_another_task_is_refused(models, tmp_path):
    folder = models.sentence_transformers_6(tmp_path / "v6")
    edit(folder / "sentence_bert_config.json", transformer_task="feature-extraction")
    with pytest.raises(RepresentationError, match="'feature-extraction', not 'fill-mask'"):
        read_layout(folder)


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(RepresentationError, match="merged into its base model"):
        read_layout(folder)


@pytest.mark.parametrize("path", ["../other", "/etc"])
def test_paths_outside_the_checkpoint_are_refused(models, folder, path):
    models.write_json(folder / "modules.json", [{"path": path, "type": "sentence_transformers.models.Transformer"}])
    with pytest.raises(RepresentationError, match="outside of its own folder"):
        read_layout(folder)


def test_broken_json_is_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(RepresentationError, match=r"config\.json is not JSON"):
        read_layout(folder)
