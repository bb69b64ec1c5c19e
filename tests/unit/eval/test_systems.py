"""What is typed of systems, and their encoders."""

import pytest
from models import raw

from lexmax.eval.suite.systems import EncoderSpec, System, load_encoders, parse_systems
from lexmax.index.errors import LexmaxError, RepresentationError


def test_systems_are_read():
    slim = EncoderSpec(model="a/model=x", settings=(("kind", "slim"), ("dtype", "bfloat16")))
    assert parse_systems([
        "b=bm25", "s=a/model=x,kind=slim,dtype=bfloat16", "d=dense:bm25", "k=bm25,k1=0.9", "r=rerank:b>s", "f=fusion:b+r",
        "w=fusion:b*0.3+f*2", "m=rerank:b+f>model:a/model=x,kind=slim,dtype=bfloat16",
    ]) == [
        System(name="b", kind="encoder", encoder=EncoderSpec()),
        System(name="s", kind="encoder", encoder=slim),
        System(name="d", kind="encoder", encoder=EncoderSpec(model="bm25", dense=True)),
        System(name="k", kind="encoder", encoder=EncoderSpec(settings=(("k1", "0.9"),))),
        System(name="r", kind="rerank", encoder=slim, parts=("b",)),
        System(name="f", kind="fusion", parts=("b", "r")),
        System(name="w", kind="fusion", parts=("b", "f"), weights=(0.3, 2.0)),
        System(name="m", kind="rerank", encoder=slim, parts=("b", "f")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "nothing to compare"),
        (["bm25"], "NAME=SPEC"),
        (["a b=bm25"], "NAME=SPEC"),
        (["a|b=bm25"], "NAME=SPEC"),
        (["a*b=bm25"], "NAME=SPEC"),
        (["a="], "NAME=SPEC"),
        (["a=bm25", "a=x"], "two systems are called 'a'"),
        (["a=x,y"], "a setting of 'x' takes NAME=VALUE, not 'y'"),
        (["a=x,k=1,k=2"], "settings named once"),
        (["a=x,device=cuda"], "other than model and device"),
        (["a=dense:"], "is no MODEL"),
        (["f=fusion:a+b", "a=bm25"], "f: 'a' is no system before it; there are none"),
        (["a=bm25", "f=fusion:a"], "fusion:A"),
        (["a=bm25", "f=fusion:a+a"], "f: names a system twice in a\\+a"),
        (["a=bm25", "b=x", "f=fusion:a*0.3+b"], "f: every system of a weighted fusion has a weight > 0, .* not ''"),
        (["a=bm25", "b=x", "f=fusion:a*0.3+b*-1"], "not '-1'"),
        (["a=bm25", "b=x", "f=fusion:a*0.3+b*nan"], "not 'nan'"),
        (["a=bm25", "b=x", "f=fusion:a*0.3+b*much"], "not 'much'"),
        (["a=bm25", "r=rerank:a"], "rerank:FIRST>SECOND"),
        (["a=bm25", "r=rerank:>a"], "rerank:FIRST>SECOND"),
        (["a=bm25", "r=rerank:a>b"], "r: 'b' is no system before it; there are a"),
        (["a=bm25", "r=rerank:a+c>a"], "r: 'c' is no system"),
        (["a=bm25", "r=rerank:a+a>a"], "r: names a system twice"),
        (["a=bm25", "r=rerank:a>model:"], "is no MODEL"),
        (["a=bm25", "b=x", "f=fusion:a+b", "r=rerank:a>f"], "'f' has no vectors"),
    ],
)
def test_systems_that_make_no_sense(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_systems(texts)


def test_encoders_are_made_once(tmp_path):
    model = raw(tmp_path / "m")
    systems = parse_systems(["a=bm25", f"b={model},document_top_k=3", f"c={model},document_top_k=3", "d=bm25,k1=0.9"])
    encoders = load_encoders(systems)
    assert [spec.settings for spec in encoders] == [(), (("document_top_k", "3"),), (("k1", "0.9"),)]
    assert encoders[systems[1].encoder].settings["document_top_k"] == 3
    assert encoders[systems[3].encoder].settings["k1"] == 0.9


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("bm25,k2=1", ValueError, "^s: .*k2"),
        ("bm25,kind=splad", ValueError, "^s: unknown encoder 'splad'"),
        ("MODEL,document_topk=1", ValueError, "^s: unknown options document_topk: SpladeConfig takes"),
        ("MODEL,document_top_k=0", ValueError, "^s: top_k is 0"),
        ("MODEL,dtype=int3", ValueError, "^s: dtype is 'int3'"),
        ("MODEL,kind=colbert", RepresentationError, "^s: .*ColBERT"),
        ("dense:MODEL", RepresentationError, "^s: .*no modules.json"),
        ("dense:MODEL,k1=1", ValueError, "^s: unknown options k1: DenseConfig takes"),
        ("MODEL/none", LexmaxError, "no model folder"),
    ],
)
def test_settings_that_make_no_sense(spec, error, message, tmp_path):
    model = str(raw(tmp_path / "m"))
    with pytest.raises(error, match=message):
        load_encoders(parse_systems([f"s={spec.replace('MODEL', model)}"]))


def test_other_vectors_do_not_rerank(tmp_path):
    with pytest.raises(RepresentationError, match="r: a bm25 encoder makes no token vectors"):
        load_encoders(parse_systems(["b=bm25", "r=rerank:b>b"]))
    model = raw(tmp_path / "m")
    with pytest.raises(RepresentationError, match="r: a splade encoder makes no token vectors"):
        load_encoders(parse_systems(["b=bm25", f"r=rerank:b>model:{model}"]))


def test_broken_weights_are_known_at_once(tmp_path):
    model = raw(tmp_path / "m")
    (model / "model.safetensors").unlink()
    with pytest.raises(RepresentationError, match=r"s: .*no weights"):
        load_encoders(parse_systems(["b=bm25", f"s={model}"]))


def test_encoders_of_the_same_document_vectors_encode_each_document_once(tmp_path, monkeypatch):
    from lexmax.retrieval.encoders.tower import Tower

    folder = str(raw(tmp_path / "m"))
    one, other, shorter = load_encoders(parse_systems([
        f"a={folder}", f"b={folder},queries=bag", f"c={folder},document_top_k=3",
    ])).values()  # fmt: skip
    alone = shorter.encode_documents(["sun", "rain"])
    seen, encode = [], Tower.encode
    monkeypatch.setattr(Tower, "encode", lambda self, texts, side: seen.extend(texts) or encode(self, texts, side))
    first, second = one.encode_documents(["sun", "rain", "sun"]), other.encode_documents(["rain", "snow"])
    assert seen == ["sun", "rain", "snow"]
    assert first.row(1)[0].tolist() == second.row(0)[0].tolist()
    assert first.row(1)[1].tolist() == second.row(0)[1].tolist()
    assert shorter.encode_documents(["sun", "rain"]).row(0)[0].tolist() == alone.row(0)[0].tolist()
    assert seen[3:] == ["sun", "rain"]
