"""Sparse autoencoders in training: against plain torch, and against themselves after a kill."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from lexmax import load_encoder
from lexmax.__main__ import main
from lexmax.index.errors import DatasetError, LexmaxError
from lexmax.retrieval.encoders.checkpoints.sae import BaseFiles
from lexmax.retrieval.training.log import read_log
from lexmax.retrieval.training.sae import DEAD_WEIGHT, SparseAutoencoder
from lexmax.retrieval.training.sae_loop import SaeTrainConfig, train_sae
from lexmax.retrieval.training.sae_model import SaeModelConfig
from lexmax.retrieval.training.sae_vectors import CHUNK, TrainingVectors, drawn
from lexmax.retrieval.training.students.colbert import ColbertStudent, ColbertStudentConfig

from .conftest import WORDS, write_lines

CONFIG = SaeTrainConfig(
    n_latents=40,
    n_active=2,
    n_steps=60,
    batch_size=64,
    learning_rate=0.02,
    dead_after=3,
    log_every=10,
    checkpoint_every_steps=20,
)
TEXTS = [" ".join([*np.random.default_rng(i).choice(WORDS, 3 + i % 7), f"n{i}"]) for i in range(CHUNK + 60)]


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def colbert(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colbert")
    ColbertStudent(checkpoint, ColbertStudentConfig(dim=12)).save(folder)
    return folder


@pytest.fixture(scope="module")
def base(colbert: Path):
    return load_encoder("colbert", model=str(colbert))


@pytest.fixture(scope="module")
def files(colbert: Path, base) -> BaseFiles:
    return BaseFiles(kind="colbert", model=str(colbert), fingerprint=base.fingerprint)


@pytest.fixture(scope="module")
def whole(base, files, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("run")
    return train_sae(base, files, TEXTS, CONFIG, SaeModelConfig(), out)


def plain_losses(network: dict[str, torch.Tensor], inputs: torch.Tensor, n_active: int, dead: list[int]):
    """The losses over whole rows of latents, with nothing left out."""
    products = (inputs - network["decoder_bias"]) @ network["encoder"].T + network["encoder_bias"]

    def top(allowed):
        masked = torch.where(allowed, products, -torch.inf)
        kept = torch.zeros_like(products).scatter(1, masked.topk(n_active, dim=1).indices, 1.0)
        return torch.where(allowed, products * kept, 0).relu()

    everything = torch.ones(products.shape[1], dtype=torch.bool)
    errors = inputs - top(everything) @ network["decoder"] - network["decoder_bias"]
    unexplained = (errors**2).sum() / (inputs**2).sum()
    some = torch.zeros_like(everything)
    some[dead] = True
    target = errors.detach()
    rest = ((target - top(some) @ network["decoder"]) ** 2).sum() / (target**2).sum() if dead else torch.zeros(())
    return unexplained + DEAD_WEIGHT * rest


@pytest.mark.parametrize("dead", [[], [1, 4, 5, 19]])
def test_a_step_is_that_of_plain_torch(dead: list[int]) -> None:
    vectors, mean = torch.randn(50, 6, generator=torch.Generator().manual_seed(3)), torch.linspace(-1, 1, 6)
    ours = SparseAutoencoder(6, 20, 3, mean=mean, scale=0.7, seed=5)
    with torch.no_grad():
        for parameter in (ours.encoder_bias, ours.decoder_bias):
            parameter.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(8))
    plain = {name: parameter.detach().clone().requires_grad_() for name, parameter in ours.named_parameters()}
    optimizers = [torch.optim.Adam(ours.parameters(), lr=0.01), torch.optim.Adam(plain.values(), lr=0.01)]
    for _ in range(3):
        losses = ours.losses(vectors, torch.tensor(dead, dtype=torch.long)).total
        expected = plain_losses(plain, 0.7 * (vectors - mean), 3, dead)
        torch.testing.assert_close(losses, expected)
        for optimizer, loss in zip(optimizers, (losses, expected), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ours.to_unit_columns()
        plain["decoder"].data = normalize(plain["decoder"].data, dim=1)
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter, plain[name], msg=name)
    torch.testing.assert_close(ours.decoder.norm(dim=1), torch.ones(20))


def test_the_loss_falls_and_the_log_tells_it(whole) -> None:
    lines = read_log(whole.model.parent / "log.jsonl")
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert lines[-1]["unexplained"] < 0.7 * lines[0]["unexplained"]
    assert whole.unexplained < 0.7 * lines[0]["unexplained"]
    assert (whole.n_steps, whole.n_resumed, whole.n_texts) == (60, 0, len(TEXTS))


@pytest.mark.parametrize("killed", ["encoding", "steps"])
def test_a_killed_run_ends_bit_identical(killed: str, whole, base, files, tmp_path: Path) -> None:
    def kill(n: int) -> None:
        if n >= (33 if killed == "steps" else 1):
            raise Killed

    where = {"encoding": kill} if killed == "encoding" else {"progress": kill}
    with pytest.raises(Killed):
        train_sae(base, files, TEXTS, CONFIG, SaeModelConfig(), tmp_path, **where)
    for path in (tmp_path / "vectors").iterdir():  # as when a kill tears the next chunk
        with path.open("ab") as file:
            file.write(b"half a number"[: 4 if killed == "encoding" else 0])
    torch.manual_seed(99)
    report = train_sae(base, files, TEXTS, CONFIG, SaeModelConfig(), tmp_path)
    assert report.n_resumed == (20 if killed == "steps" else 0)
    for name in ("model/model.safetensors", "model/latents.json", "model/config.json", "vectors/vectors.bin"):
        assert (tmp_path / name).read_bytes() == (whole.model.parent / name).read_bytes(), name


def test_another_run_in_the_folder_is_refused(whole, base, files) -> None:
    out = whole.model.parent
    for config, texts, what in (
        (replace(CONFIG, n_active=3), TEXTS, "n_active"), (CONFIG, TEXTS[1:], "n_texts, texts"),
    ):  # fmt: skip
        with pytest.raises(FileExistsError, match=f"holds a run with another {what}"):
            train_sae(base, files, texts, config, SaeModelConfig(), out)


def test_the_checkpoint_counts_and_names_what_the_texts_activate(whole, base) -> None:
    stored, latents = load_file(whole.model / "model.safetensors"), json.loads((whole.model / "latents.json").read_text())
    network = {name: tensor.double() for name, tensor in stored.items()}
    config = json.loads((whole.model / "config.json").read_text())
    frequencies, by_token, best = Counter(), defaultdict(Counter), defaultdict(list)
    error = total = 0.0
    for number, text in enumerate(TEXTS):
        (row,) = base.document_side.rows([text])
        ids = [token for token, kept in zip(row.ids, row.kept, strict=True) if kept]
        vectors = torch.from_numpy(base.encode_documents([text]).tokens).half().double()
        inputs = config["scale"] * (vectors - network["mean"])
        products = (inputs - network["decoder_bias"]) @ network["encoder"].T + network["encoder_bias"]
        top = products.topk(2, dim=1)
        dense = torch.zeros_like(products).scatter(1, top.indices, top.values.relu())
        error += float((inputs - dense @ network["decoder"] - network["decoder_bias"]).square().sum())
        total += float(inputs.square().sum())
        for token, activations in zip(ids, dense, strict=True):
            for latent in activations.nonzero()[:, 0].tolist():
                by_token[latent][token] += float(activations[latent])
        for latent in dense.amax(0).nonzero()[:, 0].tolist():
            frequencies[latent] += 1
            best[latent].append((-float(dense[:, latent].max()), number))
    counted = np.array([frequencies[latent] for latent in range(40)])
    np.testing.assert_allclose(stored["idf"], np.log(1 + (len(TEXTS) - counted + 0.5) / (counted + 0.5)), rtol=0.02)
    assert whole.unexplained == pytest.approx(error / total, rel=1e-3)
    assert whole.n_dead == sum(counted == 0)
    checked, all_tokens = 0, sum(by_token.values(), Counter())
    for latent, described in enumerate(latents):
        if frequencies[latent] < 5:
            continue
        shares = {token: mass / by_token[latent].total() for token, mass in by_token[latent].items()}
        strongest = max(
            shares, key=lambda token: shares[token] * np.log(shares[token] * all_tokens.total() / all_tokens[token])
        )
        assert described["tokens"][0] == base.token_strings[strongest]
        assert described["label"].startswith(described["tokens"][0].removeprefix("##"))
        assert described["texts"][0] == TEXTS[min(best[latent])[1]][:100]
        checked += 1
    assert checked > 15
    assert f"Unexplained variance {whole.unexplained:.3f}" in (whole.model / "README.md").read_text()


def test_the_model_is_an_encoder_and_words_name_latents_of_a_dense_one(whole, checkpoint, tmp_path, capsys) -> None:
    assert load_encoder(model=str(whole.model)).encode_queries(["hot sea"]).n_postings > 2
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    modules = [Transformer(str(checkpoint), transformer_task="feature-extraction", max_seq_length=16), Pooling(16, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "dense"))
    corpus = write_lines(tmp_path / "c.jsonl", [{"_id": str(i), "text": text} for i, text in enumerate(TEXTS)])
    command = ["train", "sae", "--model", str(tmp_path / "dense"), "--corpus", str(corpus), "--out", str(tmp_path / "run"),
               "--latents", "20", "--active", "4", "--steps", "30", "--documents", "90", "--batch-size", "32",
               "--set", "examples=0", "gain=5", "--threads", "1"]  # fmt: skip
    assert main(command) == 0
    model = capsys.readouterr().out.strip()
    encoder = load_encoder(model=model)
    assert encoder.encode_documents(["snow on the hill"]).n_postings == 4
    assert json.loads(Path(model, "config.json").read_text())["gain"] == 5
    latents = json.loads(Path(model, "latents.json").read_text())
    assert all(set(each["label"].split()) <= {*WORDS, *(text.split()[-1] for text in TEXTS)} for each in latents)
    assert not any(each["texts"] for each in latents)
    assert sum(bool(each["label"]) for each in latents) > 10


def test_texts_are_drawn_at_random_once_each() -> None:
    texts = [str(i % 50) for i in range(200)] + ["", " "]
    some = drawn(texts, 20, seed=1)
    assert len(set(some)) == 20
    assert some == drawn(texts, 20, seed=1) != drawn(texts, 20, seed=2)
    assert sorted(drawn(texts, 99, seed=0)) == sorted(set(texts[:50]))
    with pytest.raises(DatasetError, match="no text to learn from"):
        drawn(["", " "], 3, seed=0)


def test_a_loss_that_is_no_number_ends_the_run(base, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingVectors, "_encoded", lambda self, texts: (
        np.full((len(texts), 12), np.nan, np.float16), np.zeros(len(texts), np.int32), np.ones(len(texts), np.int32)
    ))  # fmt: skip
    with pytest.raises(LexmaxError, match="the loss is nan at step 1: lower --learning-rate"):
        train_sae(base, files, TEXTS, CONFIG, SaeModelConfig(), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "x.jsonl"], "--data is not for sae, which learns from a --corpus alone"),
        (["--active", "9", "--latents", "4", "--corpus", "{corpus}"], "9 active of 4 latents"),
        (["--corpus", "{corpus}", "--documents", "0"], "--documents is 0: it must be >= 1"),
        (["--corpus", "{corpus}", "--set", "pooling=max"], "--set does not know 'pooling'; there are b, document_pooling"),
        (["--corpus", "{corpus}", "--set", "gain=0"], "gain must be > 0"),
        (["--corpus", "{corpus}", "--set", "weighting=tf"], "weighting is 'tf': expected log1p or bm25"),
        (["--corpus", "{corpus}", "--set", "dim=3"], "--set does not know 'dim'"),
        ([], "train sae needs a --corpus"),
    ],
)
def test_wrong_options_are_one_line(options, message, colbert, tmp_path, capsys) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", [{"_id": "a", "text": "snow"}])
    given = [option.format(corpus=corpus) for option in options]
    assert main(["train", "sae", "--model", str(colbert), "--out", str(tmp_path / "o"), "--steps", "1", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_options_of_sae_are_for_sae(colbert, tmp_path, capsys) -> None:
    rest = ["--model", str(colbert), "--out", str(tmp_path / "o")]
    assert main(["train", "dense", *rest, "--data", "x", "--latents", "3"]) == 2
    assert "--latents is for sae, not for dense" in capsys.readouterr().err
    assert main(["train", "dense", *rest]) == 2
    assert "train dense needs --data" in capsys.readouterr().err
