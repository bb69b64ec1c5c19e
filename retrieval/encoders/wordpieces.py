"""Text to token ids with the tokenizers library alone, so that a table of query weights needs no torch.

`checkpoints.tokenizer_files` reads a folder's tokenizer. Padding and truncation of its own are switched off: nothing changes a
:class:`Wordpieces` once it is made, so threads share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...index.arrays import Floats, Int64s
from ...index.errors import RepresentationError
from ...index.representations.sparse import SparseVectors
from .checkpoints.tokenizer_files import read_tokenizer

# Embedding tables are often padded to a round number of rows; a larger gap means the tokenizer of another model.
SPARE_ROWS, SPARE_SHARE = 1024, 0.02


def spare_rows(n_rows: int) -> int:
    """Rows of an embedding table of ``n_rows`` that may belong to no token."""
    return max(SPARE_ROWS, int(SPARE_SHARE * n_rows))


class Wordpieces:
    """The tokenizer of one checkpoint.

    Parameters
    ----------
    folder : Path
        As `checkpoints.tokenizer_files.read_tokenizer` takes it.
    lowercase : bool
        Lower-case the text even if the tokenizer would not.

    Attributes
    ----------
    tokens : list of str
        Token strings by id.
    special_ids : frozenset of int
        Ids of [CLS], [SEP], [UNK] and the like.
    head, tail : tuple of int
        Ids that the model puts before and after a text, such as [CLS] and [SEP].
    digest : str
        Hash of whatever changes the ids.

    Raises
    ------
    RepresentationError
        When no tokenizer is there, it cannot be read, or ids would not be those that its files state.
    MissingDependencyError
        When it takes transformers to read it, and that is not installed.
    """

    def __init__(self, folder: Path, *, lowercase: bool = False) -> None:
        files = read_tokenizer(folder, lowercase=lowercase)
        self._tokenizer, self._cuts_left, self.digest = files.tokenizer, files.cuts_left, files.digest
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.tokens = [f"[id {number}]" for number in range(max(ids.values()) + 1)]
        for token, number in ids.items():
            self.tokens[number] = token
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(number for number, token in added.items() if token.special)
        self._n_added = self._tokenizer.num_special_tokens_to_add(False)
        probes = (self._tokenizer.encode(text, add_special_tokens=True) for text in ("a", *self.tokens))
        probe = next(probe for probe in probes if not all(probe.special_tokens_mask))
        inner = [at for at, added in enumerate(probe.special_tokens_mask) if not added]
        self.head, self.tail = tuple(probe.ids[: inner[0]]), tuple(probe.ids[inner[-1] + 1 :])

    def encode(self, texts: Sequence[str], *, max_length: int) -> list[list[int]]:
        """Ids with the model's special tokens, at most ``max_length`` of them a text."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for encoding in encodings:
            encoding.truncate(max_length - self._n_added, direction="left" if self._cuts_left else "right")
        return [self._tokenizer.post_process(encoding).ids for encoding in encodings]

    def add_specials(self, tokens: Sequence[str]) -> None:
        """Read tokens of the vocabulary that stand in a text, such as "[unused0]", as the special tokens they are."""
        self._tokenizer.add_special_tokens(list(tokens))
        self.special_ids |= {number for token in tokens if (number := self.token_id(token)) is not None}

    def save(self, path: Path) -> None:
        """Write the tokenizer as it is now, a tokenizer.json."""
        self._tokenizer.save(str(path))

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text's own wordpieces, uncut."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def cut(self, tokens: list[Any], room: int) -> list[Any]:
        """The ``room`` tokens that a text that is too long keeps: its first ones, or its last where the tokenizer cuts left."""
        return tokens[max(0, len(tokens) - room) :] if self._cuts_left else tokens[:room]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character offsets (start, end) of the wordpieces that :meth:`pieces` gives for the text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)

    def token_id(self, token: str) -> int | None:
        """Id of a token of the vocabulary, None when there is no such token."""
        number: int | None = self._tokenizer.token_to_id(token)
        return number

    def terms(self, text: str, *, max_length: int | None = None) -> list[int]:
        """Ids of the text's own wordpieces, special tokens left out, in order and with repeats."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if max_length is not None:
            ids = self.cut(ids, max_length)
        # A typed "[SEP]" or an unknown word is no term, though tables such as idf.json give them a weight of 1.
        return [number for number in ids if number not in self.special_ids]

    def bags(self, texts: Sequence[str], weights: Floats, *, max_length: int) -> SparseVectors:
        """Weigh each distinct wordpiece of a text by ``weights`` (n_terms,), however often it occurs."""
        rows = [np.unique(np.array(self.terms(text, max_length=max_length), np.int32)) for text in texts]
        return SparseVectors.from_rows([(terms, weights[terms]) for terms in rows])  # type: ignore[misc]

    def vocabulary(self, n_terms: int) -> list[str]:
        """Token strings for the ``n_terms`` output dimensions of a model.

        Raises
        ------
        RepresentationError
            When the tokenizer and the model cannot belong together.
        """
        spare = n_terms - len(self.tokens)
        if not 0 <= spare <= spare_rows(n_terms):
            raise RepresentationError(
                f"the tokenizer has {len(self.tokens)} tokens but the model {n_terms} output dimensions: "
                "put the tokenizer files of this model into its folder"
            )
        return self.tokens + [f"[id {number}]" for number in range(len(self.tokens), n_terms)]


def batches_by_length(rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[Int64s]:
    """Numbers of the rows in batches of like length, which waste little padding; the longest first: memory peaks at once."""
    order = np.argsort([-len(row) for row in rows], kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
