"""Packed folders give the vectors of the weights they stand for, in 8 bits and on a trunk; what is damaged is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lexmax.__main__ import main
from lexmax.index.errors import LexmaxError, RepresentationError
from lexmax.retrieval import models as shipped
from lexmax.retrieval.encoders.loader import load_model_encoder, resolve_model
from lexmax.retrieval.encoders.networks.loading import load_network, read_tensors, weights_digest
from lexmax.retrieval.encoders.networks.packed import FILE, FORMAT, pack, rounded, unpack
from lexmax.retrieval.encoders.networks.packing import pack_folder
from lexmax.retrieval.training.students.registry import make_student

MATRIX = "bert.encoder.layer.0.output.dense.weight"
DENSE = "cls.predictions.transform.dense.weight"


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / FILE)


def metadata(folder: Path) -> dict[str, str]:
    with safe_open(folder / FILE, "pt") as file:
        return file.metadata()


def rewrite(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **stated: str) -> None:
    """Write a packed file again with other tensors or other metadata."""
    known = metadata(folder)
    save_file(stored(folder) if tensors is None else tensors, folder / FILE, {**known, **stated})


def unpacked(folder: Path, out: Path) -> Path:
    """The same folder with the weights that the packed ones stand for in an ordinary file."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(FILE))
    save_file(unpack(folder), out / "model.safetensors", {"format": "pt"})
    return out


@pytest.fixture
def trunk(raw: Path, tmp_path: Path) -> Path:
    """The BertModel within the ``raw`` masked language model, packed."""
    plain = tmp_path / "plain"
    load_network(raw, "AutoModel", may_lack=["pooler."]).save_pretrained(plain)
    shutil.copyfile(raw / "tokenizer.json", plain / "tokenizer.json")
    pack_folder(plain, tmp_path / "trunk")
    return tmp_path / "trunk"


@pytest.fixture
def head(raw: Path, trunk: Path) -> Path:
    """The masked language model as a head on the trunk."""
    pack_folder(raw, trunk.with_name("head"), trunk=trunk)
    return trunk.with_name("head")


@pytest.fixture
def packed(raw: Path, tmp_path: Path) -> Path:
    pack_folder(raw, tmp_path / "packed")
    return tmp_path / "packed"


def test_codes_are_off_by_half_a_scale_at_most_and_packing_again_changes_nothing(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 40, generator=generator) * torch.logspace(-6, 6, 50)[:, None]
    rows[3] = 0
    given = {"m": rows, "v": torch.randn(40, generator=generator), "kept": torch.randn(3, 4), "wide": torch.full((2, 2), 1e9)}
    pack(given, tmp_path / FILE, eight_bit={"m"})
    found, scale = unpack(tmp_path), rows.abs().amax(1) / 127
    assert torch.all((found["m"] - rows).abs() <= scale[:, None] * 0.5001)
    assert not found["m"][3].any()
    assert torch.equal(found["v"], given["v"])
    assert torch.equal(found["kept"], given["kept"].half().float())
    assert torch.equal(found["wide"], given["wide"])  # beyond what float16 reaches
    assert {name: tensor.dtype for name, tensor in stored(tmp_path).items()} == {
        "m": torch.int8, "m.scale": torch.float32, "v": torch.float32, "kept": torch.float16, "wide": torch.float32,
    }  # fmt: skip
    assert torch.equal(found["m"], rounded(rows, in_8_bits=True))
    pack(found, tmp_path / FILE, eight_bit={"m"})
    torch.testing.assert_close(unpack(tmp_path)["m"], found["m"], rtol=1e-6, atol=0)


def test_names_select_tensors(packed, head):
    assert set(unpack(packed, [MATRIX, "absent"])) == {MATRIX}
    assert torch.equal(unpack(packed, [MATRIX])[MATRIX], unpack(packed)[MATRIX])
    assert set(unpack(head, [MATRIX, DENSE])) == {MATRIX, DENSE}  # of the trunk, and of its own
    assert torch.equal(unpack(head, [MATRIX])[MATRIX], unpack(packed)[MATRIX])


def test_rows_of_multiples_of_one_number_lose_nothing():
    codes = torch.randint(-127, 128, (9, 300), generator=torch.Generator().manual_seed(1))
    codes[0], codes[1] = codes[0] * 2 + 1, 0  # the first has a wider range than 8 bits hold, as with a zero point
    found = rounded(codes * 0.0123, in_8_bits=True)
    assert torch.equal(found[1:], codes[1:] * 0.0123)
    assert 0 < (found[0] - codes[0] * 0.0123).abs().max() < 0.0123 * 1.01
    assert not rounded(torch.zeros(2, 3), in_8_bits=True).any()


@pytest.mark.parametrize("tensor", [torch.ones(3), torch.ones(2, 2, 2), torch.tensor([[1.0, float("nan")]])])
def test_what_8_bits_cannot_hold_is_refused(tmp_path, tensor):
    with pytest.raises(ValueError, match="x has"):
        pack({"x": tensor}, tmp_path / FILE, eight_bit=["x"])


def test_a_head_stores_what_the_trunk_lacks(packed, head, trunk):
    assert {name.split(".")[0] for name in stored(head)} == {"cls"}
    assert metadata(head) == {**FORMAT, "trunk": "../trunk", "trunk_prefix": "bert."}
    assert stored(head)[DENSE].dtype == torch.float16
    assert set(unpack(head)) == {*unpack(packed), "bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    for name, tensor in unpack(packed).items():
        assert torch.equal(unpack(head)[name], tensor)


def test_a_head_overrides_the_trunk(raw, trunk, tmp_path):
    changed = shutil.copytree(raw, tmp_path / "changed")
    tensors = load_file(raw / "model.safetensors")
    tensors[MATRIX] += 1
    save_file(tensors, changed / "model.safetensors", {"format": "pt"})
    done = pack_folder(changed, tmp_path / "other", trunk=trunk)
    assert (done.n_stored, done.n_shared) == (6, len(tensors) - 6)  # five of the MLM head, which ties its decoder
    assert (unpack(tmp_path / "other")[MATRIX] - unpack(trunk)[MATRIX.removeprefix("bert.")]).mean() == pytest.approx(
        1, abs=0.01
    )


def test_a_head_of_unpacked_weights_shares_them_bitwise(packed, trunk, tmp_path):
    # Packed once more, codes could round another way: what came out of the trunk is recognised as it is.
    done = pack_folder(unpacked(packed, tmp_path / "wide"), tmp_path / "again", trunk=trunk)
    assert done.n_stored == 5
    assert torch.equal(unpack(tmp_path / "again")[MATRIX], unpack(packed)[MATRIX])


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("tied", [True, False])
def test_packed_splade_equals_its_unpacked_weights(models, dense, tmp_path, family, tied):
    pack_folder(models.raw(tmp_path / "raw", family, tied=tied), tmp_path / "packed")
    encoder = load_model_encoder(str(tmp_path / "packed"))
    reference = load_model_encoder(str(unpacked(tmp_path / "packed", tmp_path / "wide")))
    found = dense(encoder.encode_documents(models.TEXTS))
    np.testing.assert_allclose(found, dense(reference.encode_documents(models.TEXTS)), atol=1e-6)
    assert np.abs(found).max() > 1
    exact = dense(load_model_encoder(str(tmp_path / "raw")).encode_documents(models.TEXTS))
    assert 0 < np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)


def test_a_splade_head_equals_its_unpacked_weights(models, dense, head, tmp_path):
    reference = load_model_encoder(str(unpacked(head, tmp_path / "wide")))
    found = dense(load_model_encoder(str(head)).encode_documents(models.TEXTS))
    np.testing.assert_allclose(found, dense(reference.encode_documents(models.TEXTS)), atol=1e-6)


def test_a_colbert_head_equals_its_unpacked_weights(colbert_models, stanford, tmp_path):
    plain = tmp_path / "plain"
    load_network(stanford, "AutoModel").save_pretrained(plain)
    pack_folder(plain, tmp_path / "trunk")
    pack_folder(stanford, tmp_path / "head", trunk=tmp_path / "trunk")
    assert set(stored(tmp_path / "head")) == {"linear.weight"}
    encoder = load_model_encoder(str(tmp_path / "head"))
    reference = load_model_encoder(str(unpacked(tmp_path / "head", tmp_path / "wide")))
    for side in ("encode_documents", "encode_queries"):
        found, expected = (getattr(each, side)(colbert_models.TEXTS) for each in (encoder, reference))
        np.testing.assert_allclose(found.tokens, expected.tokens, atol=1e-6)
    assert encoder.kind == "colbert"


def test_modules_of_sentence_transformers_are_copied(colbert_models, models, dense, tmp_path):
    late = colbert_models.sentence_transformers(tmp_path / "late")
    idf = {token: 0.25 * i for i, token in enumerate(models.VOCABULARY)}
    table = models.router_with_idf_folder(tmp_path / "table", idf)
    for folder in (late, table):
        pack_folder(folder, folder.with_name(f"packed-{folder.name}"))
    found, expected = (load_model_encoder(str(folder)) for folder in (tmp_path / "packed-late", late))
    vectors, exact = (each.encode_documents(["a cold night in the city"]).tokens for each in (found, expected))
    assert (vectors * exact).sum(1).min() > 0.99
    found, expected = (load_model_encoder(str(folder)) for folder in (tmp_path / "packed-table", table))
    assert found.kind == "inference-free"
    np.testing.assert_array_equal(*(dense(each.encode_queries(models.TEXTS)) for each in (found, expected)))


def test_digests_follow_every_byte_of_head_and_trunk(head, trunk):
    before = weights_digest(head)
    assert weights_digest(head) == before != weights_digest(trunk)
    for folder in (head, trunk):
        file = folder / FILE
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert weights_digest(head) != before
        file.write_bytes(content)
    assert weights_digest(head) == before


def damaged(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-100])


def without_scale(folder: Path) -> None:
    tensors = stored(folder)
    del tensors[next(name for name in tensors if name.endswith(".scale"))]
    rewrite(folder, tensors)


def with_a_short_scale(folder: Path) -> None:
    tensors = stored(folder)
    name = next(name for name in tensors if name.endswith(".scale"))
    rewrite(folder, {**tensors, name: tensors[name][:-1].clone()})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged, "cannot read the packed weights"),
        (without_scale, "and no scales; expected one scale a row"),
        (with_a_short_scale, r"and scales \(\d+,\); expected one scale a row"),
        (lambda folder: rewrite(folder, version="2"), "found {'format': 'lexmax-packed', 'version': '2'}"),
        (lambda folder: save_file(stored(folder), folder / FILE), "'format': None"),
        (lambda folder: (folder / FILE).unlink(), "its trunk is missing: put the packed folder trunk at"),
        (lambda folder: rewrite(folder, trunk="../head"), "has a trunk itself"),
    ],
)
def test_a_damaged_trunk_is_refused(head, trunk, damage, message):
    damage(trunk)
    with pytest.raises(RepresentationError, match=message):
        load_model_encoder(str(head)).encode_documents(["sun"])


@pytest.mark.parametrize(
    "place", ["..", "../..", "../../trunk", "/trunk", "trunk", "../trunk/..", "../trunk/", "..\\trunk", ""]
)
def test_a_trunk_that_is_not_beside_is_refused(head, place):
    rewrite(head, trunk=place)
    with pytest.raises(RepresentationError, match=r"expected \.\./NAME, a folder beside"):
        weights_digest(head)


def test_a_head_that_names_itself_is_refused(head):
    rewrite(head, trunk="../head")
    with pytest.raises(RepresentationError, match="has a trunk itself"):
        unpack(head)


@pytest.mark.parametrize("dropped", [DENSE, "bert.encoder.layer.1.attention.self.query.bias"])
def test_parameters_left_at_random_and_other_shapes_are_refused(packed, dropped):
    tensors = stored(packed)
    rewrite(packed, {**tensors, dropped: tensors[dropped][1:].clone()})
    with pytest.raises(RepresentationError, match="cannot load the network"):
        load_network(packed, "AutoModelForMaskedLM")
    del tensors[dropped]
    rewrite(packed, tensors)
    with pytest.raises(RepresentationError, match=f"lack 1 parameters of BertForMaskedLM \\({dropped}.*would stay random"):
        load_network(packed, "AutoModelForMaskedLM")
    assert not load_network(packed, "AutoModelForMaskedLM", may_lack=[dropped]).training


def test_projections_are_refused_by_shape(stanford, tmp_path):
    pack_folder(stanford, tmp_path / "packed", keep=["embeddings"])
    assert stored(tmp_path / "packed")["bert.embeddings.word_embeddings.weight"].dtype == torch.float16
    assert set(read_tensors(tmp_path / "packed", ["linear.weight"])) == {"linear.weight"}
    tensors = stored(tmp_path / "packed")
    rewrite(tmp_path / "packed", {**tensors, "linear.weight": tensors["linear.weight"][:-1].clone()})
    with pytest.raises(RepresentationError, match="projection's weights are not what its settings say"):
        load_model_encoder(str(tmp_path / "packed")).encode_queries(["sun"])


def test_packing_says_what_is_wrong(raw, stanford, head, trunk, tmp_path):
    with pytest.raises(FileExistsError, match="head exists"):
        pack_folder(raw, head)
    for place, message in ((raw, "no trunk: it must be"), (head, "stands on no other")):
        with pytest.raises(ValueError, match=message):
            pack_folder(raw, tmp_path / "new", trunk=place)
    with pytest.raises(ValueError, match="must be beside"):
        pack_folder(raw, tmp_path / "deeper" / "new", trunk=trunk)
    with pytest.raises(ValueError, match="has no tensor of the trunk"):
        pack_folder(stanford, tmp_path / "new", trunk=reseeded(trunk))
    with pytest.raises(ValueError, match="is no regular expression"):
        pack_folder(raw, tmp_path / "new", keep=["("])
    assert not (tmp_path / "new").exists()


def reseeded(trunk: Path) -> Path:
    """The trunk with other numbers in every tensor."""
    tensors = {name: tensor + 1 if tensor.is_floating_point() else ~tensor for name, tensor in stored(trunk).items()}
    rewrite(trunk, tensors)
    return trunk


def test_from_the_command_line_to_results(raw, trunk, tmp_path, capsys):
    out, index = tmp_path / "cli", tmp_path / "idx"
    assert main(["pack", str(raw), "--out", str(out), "--trunk", str(trunk), "--keep", "transform"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert "5 tensors stored, 37 of the trunk; largest relative error 0.0" in captured.err
    documents = [{"_id": "a", "text": "rain in the city"}, {"_id": "b", "text": "a hot day by the sea"}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    assert main(["build", str(tmp_path / "c.jsonl"), "--out", str(index), "--encoder", str(out)]) == 0
    capsys.readouterr()
    assert main(["search", str(index), "hot day", "--json"]) == 0
    assert [json.loads(line)["doc_id"] for line in capsys.readouterr().out.splitlines()]
    assert main(["pack", str(raw), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["splade", "colbert", "dense"])
def test_training_starts_from_a_packed_folder(stanford, models, tmp_path, method):
    pack_folder(models.raw(tmp_path / "source") if method == "splade" else stanford, tmp_path / "packed")
    options = {"query_length": 12, "document_length": 20}
    if method == "dense":
        options["ignore_layout"] = True  # of the ColBERT
    student = make_student(method, tmp_path / "packed", **options)
    student.save(tmp_path / "saved")
    found, expected = load_file(tmp_path / "saved" / "model.safetensors"), unpack(tmp_path / "packed")
    name = MATRIX if method != "dense" else MATRIX.removeprefix("bert.")
    assert torch.equal(found[name], expected[MATRIX])


@pytest.fixture
def house(raw, monkeypatch, tmp_path) -> Path:
    """A folder of shipped models that holds a SPLADE alone."""
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "models" / "__init__.py"))
    (tmp_path / "models").mkdir()
    pack_folder(raw, tmp_path / "models" / "splade")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "models"


def test_short_names_find_shipped_models(house, raw):
    assert resolve_model("lexmax-splade") == house / "splade"
    assert load_model_encoder("lexmax-splade").settings == {"model": "lexmax-splade"}
    shutil.copytree(raw, Path("lexmax-splade"))  # a folder of that name comes first
    assert resolve_model("lexmax-splade") == Path("lexmax-splade").resolve()
    assert load_model_encoder("lexmax-splade").settings == {"model": str(Path("lexmax-splade").resolve())}


def test_what_is_not_shipped_is_said(house):
    with pytest.raises(LexmaxError, match="lexmax-dense does not come with this copy of lexmax; those that do: lexmax-splade"):
        resolve_model("lexmax-dense")
    with pytest.raises(LexmaxError, match=r"no model folder at .*; with lexmax come: lexmax-splade"):
        resolve_model("./lexmax-splade")
    shutil.rmtree(house / "splade")
    assert shipped.shipped_names() == []
    with pytest.raises(LexmaxError, match="those that do: none"):
        resolve_model("lexmax-splade")
