"""What a sparse autoencoder learns from: the vectors of texts, kept on disk, since encoding them costs more than the training.

::

    vectors.bin    float16 (n_vectors, dim), text after text, only ever appended
    tokens.bin     int32 (n_vectors,), what each vector stands for; -1 for one of a whole text
    counts.bin     int32 (n_texts,), vectors of each text, written last: what goes past it is cut off by the next run

Texts are encoded in chunks of `CHUNK`, and a run that goes on begins with a whole one, so it reads the vectors that an
uninterrupted one would.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats, Int32s, Int64s
from ...index.errors import DatasetError, StorageError
from ..encoders.shared_pass import BATCH_TEXTS, encode_sides
from ..progress import Progress

CHUNK = 8 * BATCH_TEXTS
NO_TOKEN = -1


def drawn(texts: Iterable[str], n: int, *, seed: int) -> list[str]:
    """Draw ``n`` distinct texts at random, or take all if there are fewer, in a random order (reservoir sampling).

    Raises
    ------
    DatasetError
        There is no text.
    """
    source, seen = random.Random(seed), set[str]()
    kept: list[str] = []
    for text in texts:
        if not text.strip() or text in seen:
            continue
        seen.add(text)
        at = len(kept) if len(kept) < n else source.randrange(len(seen))
        if at < n:
            kept[at : at + 1] = [text]
    if not kept:
        raise DatasetError("the corpus has no text to learn from")
    source.shuffle(kept)
    return kept


class TrainingVectors:
    """Vectors of texts by one encoder; made, or gone on with, by `fill`.

    Parameters
    ----------
    folder : Path
    base : ColbertEncoder or DenseEncoder
    texts : sequence of str

    Attributes
    ----------
    vectors : (n_vectors, dim) float16
    tokens : (n_vectors,) int32
    offsets : (n_texts + 1,) int64
        Vectors of text ``i`` are ``offsets[i]`` to ``offsets[i + 1]``.
    """

    vectors: Any
    tokens: Int32s
    offsets: Int64s

    def __init__(self, folder: Path, base: Any, texts: Sequence[str]) -> None:
        self.folder, self.base, self.texts = folder, base, texts

    def fill(self, progress: Progress | None = None) -> None:
        """Encode the texts that are not there yet; ``progress`` is called with the number of texts.

        Raises
        ------
        StorageError
            The files cannot be written or read.
        """
        paths = [self.folder / name for name in ("vectors.bin", "tokens.bin", "counts.bin")]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                path.touch()
            counts = np.fromfile(paths[2], "<i4")
            n_done = len(counts) // CHUNK * CHUNK if len(counts) < len(self.texts) else len(counts)
            n_vectors = int(counts[:n_done].sum())
            with paths[0].open("r+b") as vectors, paths[1].open("r+b") as tokens, paths[2].open("r+b") as ends:
                files = ((vectors, 2 * self.base.dim * n_vectors), (tokens, 4 * n_vectors), (ends, 4 * n_done))
                for file, size in files:
                    file.truncate(size)
                    file.seek(size)
                for first in range(n_done, len(self.texts), CHUNK):
                    some = self._encoded(self.texts[first : first + CHUNK])
                    for (file, _), content in zip(files, some, strict=True):
                        file.write(content.tobytes())
                        file.flush()
                    if progress:
                        progress(min(first + CHUNK, len(self.texts)))
            counts = np.fromfile(paths[2], "<i4")
            self.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            self.tokens = np.fromfile(paths[1], "<i4")
            self.vectors = np.memmap(paths[0], "<f2", "r", shape=(int(self.offsets[-1]), self.base.dim))
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.folder}: cannot keep the vectors of the corpus: {error}") from error

    def text_vectors(self, number: int) -> Floats:
        """Vectors of one text, (n, dim) float32."""
        found: Floats = self.vectors[self.offsets[number] : self.offsets[number + 1]].astype(np.float32)
        return found

    def _encoded(self, texts: Sequence[str]) -> tuple[Any, Any, Any]:
        """Vectors, tokens and counts of texts, one after the other."""
        side: Any = self.base.document_side
        vectors: Any = encode_sides({"": side}, texts)[""]
        if self.base.representation == "dense":
            ones = np.ones(len(texts), np.int32)
            return vectors.vectors.astype(np.float16), NO_TOKEN * ones, ones
        rows = side.rows(texts)
        ids = [number for row in rows for number, kept in zip(row.ids, row.kept, strict=True) if kept]
        counts = [last - first for first, last in pairwise(vectors.offsets.tolist())]
        return vectors.tokens.astype(np.float16), np.array(ids, np.int32), np.array(counts, np.int32)
