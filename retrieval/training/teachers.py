"""Teachers: models too slow to search with, which score lists of passages once, before a student trains.

Scores are kept in a cache as they come, a file for each teacher and input, so that a killed run goes on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from ...index.arrays import Floats
from ...index.errors import DatasetError, RepresentationError
from ...index.representations.dense import DenseVectors
from ...index.representations.multivectors import MultiVectors
from ...index.representations.sparse import SparseVectors
from ..encoders.checkpoints.dense import DenseLayout
from ..encoders.checkpoints.files import read_json
from ..encoders.checkpoints.transformer import read_transformer
from ..encoders.dense import DenseConfig, DenseEncoder
from ..encoders.loader import load_model_encoder, resolve_model
from ..encoders.networks.devices import check_device
from ..encoders.networks.loading import load_network, quiet_transformers, weights_digest
from ..progress import Progress
from .data import Example, read_examples, writing_records
from .students.starts import kind_of

EXAMPLES_AT_ONCE = 16
LENGTHS = {"dense": ("document_length", "query_length"), "colbert": ("document_length",)}
"""What ``max_length`` sets of an encoder; of sparse ones the settings have other names."""
SPARSE_LENGTHS = ("document_max_length", "query_max_length")


class Teacher(Protocol):
    """Scores passages for queries."""

    @property
    def fingerprint(self) -> str:
        """What decides the scores."""
        ...

    def score(self, examples: Sequence[Example]) -> list[list[float]]:
        """A score for each passage of each example; more is better."""
        ...


class CrossEncoder:
    """A network that reads query and passage together (arXiv 1901.04085).

    Parameters
    ----------
    folder : Path or str
        A ``*ForSequenceClassification`` checkpoint with one label, or two of which the second is relevant.
    max_length : int
        Tokens of query and passage together; the passage is cut.
    batch_size : int
    bf16 : bool
        Autocast to bfloat16.
    device : str
        As torch names it.

    Raises
    ------
    RepresentationError
        When the checkpoint is no such thing.
    ValueError
        When the device is not here.
    """

    def __init__(
        self, folder: Path | str, *, max_length: int = 512, batch_size: int = 32, bf16: bool = False, device: str = "cpu"
    ) -> None:  # fmt: skip
        from transformers import AutoTokenizer

        check_device(device)
        self._folder, self._max_length, self._batch_size, self._bf16 = Path(folder), max_length, batch_size, bf16
        self._device = torch.device(device)
        self._network = load_network(self._folder, "AutoModelForSequenceClassification").eval().to(device)
        if self._network.config.num_labels not in (1, 2):
            raise RepresentationError(f"{folder}: {self._network.config.num_labels} labels: a cross-encoder has one or two")
        with quiet_transformers():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)

    @property
    def fingerprint(self) -> str:
        """Weights, length and dtype."""
        return f"cross-encoder {weights_digest(self._folder)} {self._max_length} {self._bf16}"

    def score(self, examples: Sequence[Example]) -> list[list[float]]:
        """Logits, which distil better than probabilities near 0 and 1."""
        pairs = [(example.query, passage) for example in examples for passage in example.passages]
        order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
        flat = [0.0] * len(pairs)
        for first in range(0, len(pairs), self._batch_size):
            rows = order[first : first + self._batch_size]
            for i, logit in zip(rows, self._logits([pairs[i] for i in rows]), strict=True):
                flat[i] = logit
        scores = iter(flat)
        return [list(islice(scores, len(example.passages))) for example in examples]

    def _logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        queries, passages = ([pair[side] for pair in pairs] for side in (0, 1))
        inputs = self._tokenizer(
            queries, passages, padding=True, truncation="only_second", max_length=self._max_length, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            logits = self._network(**inputs).logits.float()
        values: list[float] = (logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]).tolist()
        return values


class BiEncoder:
    """A model that reads query and passage apart: any encoder of one vector, sparse vectors or token vectors.

    Parameters
    ----------
    encoder : Encoder
        Its own pooling, layers, prompts, lengths and normalisation are the teacher's. Passages that come again, in other lists,
        are not encoded again by a dense one.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._vectors: dict[str, Floats] = {}  # of a dense encoder, a kilobyte or two each

    @property
    def fingerprint(self) -> str:
        """The encoder's: weights, tokenizer and settings of both sides."""
        found: str = self._encoder.fingerprint
        return found

    def score(self, examples: Sequence[Example]) -> list[list[float]]:
        """Dot products or MaxSim."""
        queries = self._encoder.encode_queries([example.query for example in examples])
        passages = list(dict.fromkeys(passage for example in examples for passage in example.passages))
        documents = (
            self._remembered(passages) if isinstance(queries, DenseVectors) else self._encoder.encode_documents(passages)
        )
        numbers = {passage: number for number, passage in enumerate(passages)}
        return [
            [similarity(queries, row, documents, numbers[passage]) for passage in example.passages]
            for row, example in enumerate(examples)
        ]

    def _remembered(self, passages: Sequence[str]) -> DenseVectors:
        new = [passage for passage in passages if passage not in self._vectors]
        self._vectors.update(zip(new, self._encoder.encode_documents(new).vectors, strict=True))
        return DenseVectors(np.stack([self._vectors[passage] for passage in passages]))


def similarity(queries: Any, query: int, documents: Any, document: int) -> float:
    """Similarity of one of the queries and one of the documents, both in an encoder's representation.

    Raises
    ------
    RepresentationError
        When the representation is none that is scored here.
    """
    if isinstance(queries, DenseVectors):
        return float(queries.row(query) @ documents.row(document))
    if isinstance(queries, SparseVectors):
        (terms, weights), (others, impacts) = queries.row(query), documents.row(document)
        _, left, right = np.intersect1d(terms, others, assume_unique=True, return_indices=True)
        return float(weights[left] @ impacts[right])
    if isinstance(queries, MultiVectors):
        # A text without tokens scores lowest, as far as unit vectors go.
        tokens, others = _tokens(queries, query), _tokens(documents, document)
        return float((tokens @ others.T).max(1, initial=-1.0).sum())
    raise RepresentationError(f"{type(queries).__name__}: a teacher makes dense, sparse or token vectors")


def _tokens(vectors: MultiVectors, number: int) -> Floats:
    return vectors.tokens[vectors.offsets[number] : vectors.offsets[number + 1]]


def load_bi_encoder(
    model: str, *, pooling: Literal["mean", "cls"] | None = None, prompt: str | None = None, passage_prompt: str | None = None,
    max_length: int | None = None, device: str = "cpu",
) -> BiEncoder:  # fmt: skip
    """Make a teacher of a model's folder, as its files state it.

    Parameters
    ----------
    model : str
        As `loader.resolve_model` takes it.
    pooling : {"mean", "cls"}, optional
        For a plain transformer, whose files do not say how its states become a vector: unit vectors of this pooling.
    prompt, passage_prompt : str, optional
        In place of those that a dense model's files state.
    max_length : int, optional
        Tokens that are read, in place of what the files state.
    device : str
        As torch names it.

    Raises
    ------
    RepresentationError
        When the model is not known, or a plain transformer without ``pooling``.
    ValueError
        When an option is not for a model of this kind, or out of range.
    """
    root = resolve_model(model)
    kind = kind_of(root)
    prompts = {name: text for name, text in (("query_prompt", prompt), ("document_prompt", passage_prompt)) if text is not None}
    if kind is not None and pooling is not None:
        raise ValueError(f"pooling is for a plain transformer, but {root} states what it is: a model of kind {kind}")
    if kind is None and pooling is not None:
        check_device(device)
        chosen: dict[str, Any] = {**dict.fromkeys(LENGTHS["dense"], max_length), **prompts}
        layout = _plain_layout(root, pooling)
        return BiEncoder(DenseEncoder(DenseConfig(model=model, **chosen), layout, device=device, batch_size=32))
    if kind is None and not _is_masked_lm(root):
        raise RepresentationError(
            f"{root}: found a plain transformer, whose files do not say how its states become a vector: state a pooling"
        )
    if prompts and kind != "dense":
        raise ValueError(f"prompts are for dense models, but {root} is of kind {kind or 'splade'}, whose files state its own")
    names = LENGTHS.get(kind or "splade", SPARSE_LENGTHS) if max_length is not None else ()
    options: dict[str, Any] = {**dict.fromkeys(names, max_length), **prompts}
    return BiEncoder(load_model_encoder(str(root), kind="dense" if kind == "dense" else None, device=device, **options))


def _is_masked_lm(root: Path) -> bool:
    return any(name.endswith("ForMaskedLM") for name in read_json(root / "config.json").get("architectures") or [])


def _plain_layout(root: Path, pooling: Literal["mean", "cls"]) -> DenseLayout:
    files = read_transformer(root, root, task="feature-extraction")
    length = min(512, files.limit)
    return DenseLayout(
        folder=files.folder, tokenizer=files.tokenizer, n_tokens=files.n_tokens, document_length=length, query_length=length,
        length_limit=files.limit, lowercase=files.lowercase, pooling=pooling, projections=(), dim=files.hidden,
        truncate_dim=None, normalize=True, normalize_last=True, document_prompt="", query_prompt="",
    )  # fmt: skip


def score_lists(
    path: Path | str, out: Path | str, teachers: Mapping[str, Teacher], *, cache: Path | str,
    progress: Progress | None = None,
) -> int:  # fmt: skip
    """Write lists with the scores of teachers, beside those that they have.

    Parameters
    ----------
    path : Path or str
        Lists.
    out : Path or str
        Lists with scores.
    teachers : mapping of str to Teacher
        By the name under which their scores are written.
    cache : Path or str
        A folder. Scores found there, of the same teacher and the same lists, are not computed again.
    progress : callable, optional
        Called with the number of lists done, counting each once a teacher.

    Returns
    -------
    int
        Lists written.

    Raises
    ------
    DatasetError
        As `read_examples`; or a query has one passage, and nothing to compare it with.
    """
    digest = hashlib.sha256()
    for number, example in enumerate(read_examples(path), 1):
        if len(example.passages) < 2:
            raise DatasetError(f"example {number} has one passage: scores are for lists, which `lexmax mine` makes", path=path)
        digest.update(json.dumps([example.query, list(example.passages)]).encode())
    columns, n_done = {}, 0
    for name, teacher in teachers.items():
        key = hashlib.sha256(f"{digest.hexdigest()} {teacher.fingerprint}".encode()).hexdigest()[:16]
        columns[name] = Path(cache) / f"{re.sub(r'[^A-Za-z0-9.-]', '_', name)}-{key}.jsonl"
        for n_scored in _fill(columns[name], path, teacher):
            if progress:
                progress(n_done + n_scored)
        n_done += len(_whole_lines(columns[name]))
    n_written = 0
    with writing_records(out) as write:
        rows = [_whole_lines(column) for column in columns.values()]
        for n_written, (example, *scores) in enumerate(zip(read_examples(path), *rows, strict=True), 1):  # noqa: B007
            new = {name: json.loads(line) for name, line in zip(columns, scores, strict=True)}
            write(replace(example, scores={**example.scores, **new}).record)
    return n_written


def _fill(column: Path, path: Path | str, teacher: Teacher) -> Iterator[int]:
    """Append the scores that a cache file lacks, and yield how many lists it has."""
    column.parent.mkdir(parents=True, exist_ok=True)
    done = _whole_lines(column)
    column.write_text("".join(line + "\n" for line in done), encoding="utf-8")  # without a line that a kill cut short
    n_done, examples = len(done), islice(read_examples(path), len(done), None)
    with column.open("a", encoding="utf-8") as file:
        while batch := list(islice(examples, EXAMPLES_AT_ONCE)):
            file.writelines(json.dumps(row) + "\n" for row in teacher.score(batch))
            file.flush()
            n_done += len(batch)
            yield n_done


def _whole_lines(column: Path) -> list[str]:
    if not column.is_file():
        return []
    return column.read_text(encoding="utf-8").split("\n")[:-1]
