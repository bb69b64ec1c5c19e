"""TCT-ColBERT: one vector per text, distilled from ColBERT's token vectors (arXiv 2010.11386).

The text form is ColBERT's, without [SEP]; a query is filled up with [MASK] tokens, which are attended to and count. The vector
is the mean of the states from position 4 on, behind [CLS] and the three wordpieces of the marker::

    document    [CLS] [ d ] text
    query       [CLS] [ q ] text [MASK] ... [MASK]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ...index.arrays import Floats
from ...index.errors import RepresentationError
from .checkpoints.dense import DenseLayout
from .dense import DenseConfig, DenseEncoder, DenseSide
from .shared_pass import TextRow
from .tower import check_choices

if TYPE_CHECKING:
    import torch

    from .networks.masked_lm import Dtype

N_LEFT_OUT = 4
"""First tokens whose states do not count."""
MASK = "[MASK]"


@dataclass(frozen=True, kw_only=True)
class TctConfig:
    """What a user may choose.

    Attributes
    ----------
    model : str
        Folder or Hugging Face id.
    document_length, query_length : int
        Tokens of a document that are read, [CLS] and marker included, and of a query, [MASK] tokens included. None: 512 and 36.
    dtype : {"float32", "bfloat16", "int8"}
        Of the transformer; pooling is float32 always.
    """

    model: str
    document_length: int | None = None
    query_length: int | None = None
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_choices(self)


class TctEncoder(DenseEncoder):
    """Encodes texts as one vector each; the weights are read at the first text. Parameters are those of `DenseEncoder`.

    Raises
    ------
    RepresentationError
        As `DenseEncoder`; or the tokenizer makes no four tokens of "[CLS] [D]" and "[CLS] [Q]", or has no [MASK].
    """

    kind = "tct"

    def __init__(self, config: TctConfig, layout: DenseLayout, *, device: str, batch_size: int) -> None:
        super().__init__(DenseConfig(**asdict(config)), layout, device=device, batch_size=batch_size)
        heads = self.wordpieces.pieces([layout.document_prompt, layout.query_prompt])
        first = self.wordpieces.token_id("[CLS]")
        if [len(head) for head in heads] != [N_LEFT_OUT] * 2 or {head[0] for head in heads} != {first}:
            found = " and ".join(str(len(head)) for head in heads)
            raise RepresentationError(
                f"{layout.tokenizer}: found {found} tokens of '[CLS] [D]' and '[CLS] [Q]'; a tct model has 4 of each"
            )
        if self.wordpieces.token_id(MASK) is None:
            raise RepresentationError(f"{layout.tokenizer}: a tct model fills queries up with {MASK}, which is no token here")
        self.document_side = TctSide(self, "document", self.document_side.text)
        self.query_side = TctSide(self, "query", self.query_side.text)

    def n_truncated(self, texts: Sequence[str]) -> int:
        """How many of the documents are longer than the encoder reads, and lose their ends."""
        side = self.document_side.text
        return sum(len(ids) > side.max_length for ids in self.wordpieces.pieces([side.prompt + text for text in texts]))


class TctSide(DenseSide):
    """One side of a TCT-ColBERT; see `.shared_pass.NetworkSide`."""

    def rows(self, texts: Sequence[str]) -> list[TextRow]:
        """Rows of tokens of the texts, cut to the side's length; of queries, filled up to it."""
        from .networks.trunk import Row

        length = self.text.max_length
        end = MASK * length if self._side == "query" else ""
        pieces = self._encoder.wordpieces.pieces([self.text.prompt + text + end for text in texts])
        return [TextRow(Row(tuple(ids[:length]), len(ids[:length]))) for ids in pieces]

    def results(self, rows: Sequence[TextRow], states: Sequence[torch.Tensor]) -> list[Floats]:
        """One vector (dim,) of each text from the trunk's states; zeros for a document without text."""
        counted = [each[N_LEFT_OUT:] if len(each) > N_LEFT_OUT else each.new_zeros(1, each.shape[1]) for each in states]
        return super().results(rows, counted)
