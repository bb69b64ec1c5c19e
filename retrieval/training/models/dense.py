"""Dense students: one vector a text, the mean of its tokens' or that of [CLS] (Sentence-BERT, arXiv 1908.10084)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from ...encoders.base import Side
from .base import Encoded, Student, hidden_states
from .folders import check_lengths, copy_tokenizer, load_trunk, quiet_transformers, write_json, write_modules

ST = "sentence_transformers"


@dataclass(frozen=True, kw_only=True)
class DenseStudentConfig:
    """How a dense student encodes and what of it learns.

    Attributes
    ----------
    pooling : {"mean", "cls"}
    normalize : bool
        Whether vectors have unit length; scores are then cosines, and losses want a temperature of about 0.05.
    query_length, document_length : int
        Tokens of a text that are read, special tokens included.
    query_prompt, document_prompt : str
        Put before each text.
    freeze_embeddings : bool
        Keep the word embeddings.
    """

    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    query_length: int = 64
    document_length: int = 256
    query_prompt: str = ""
    document_prompt: str = ""
    freeze_embeddings: bool = False

    def __post_init__(self) -> None:
        if self.pooling not in ("mean", "cls"):
            raise ValueError(f"pooling is {self.pooling!r}: it must be 'mean' or 'cls'")
        if min(self.query_length, self.document_length) < 3:
            raise ValueError("lengths must leave room beside the special tokens, >= 3")


class DenseStudent(Student):
    """A transformer trunk and a pooling.

    Parameters
    ----------
    folder : Path or str
        A checkpoint of any BERT-like trunk, with or without a head.
    config : DenseStudentConfig

    Raises
    ------
    RepresentationError
        When the trunk cannot be read whole.
    """

    def __init__(self, folder: Path | str, config: DenseStudentConfig | None = None) -> None:
        super().__init__(folder)
        self.config = config or DenseStudentConfig()
        self.trunk = load_trunk(self.folder)
        check_lengths(self.trunk.config, self.config.query_length, self.config.document_length)
        if self.config.freeze_embeddings:
            self.trunk.get_input_embeddings().weight.requires_grad_(False)

    def encode(self, texts: Sequence[str], side: Side) -> Encoded:
        """Vectors, (n_texts, hidden) float32."""
        settings = asdict(self.config)
        prompted = [settings[f"{side}_prompt"] + text for text in texts]
        ids = self.wordpieces.encode(prompted, max_length=settings[f"{side}_length"])
        states = hidden_states(self.trunk, ids, self.trunk.config.pad_token_id or 0)
        if self.config.pooling == "cls":
            vectors = torch.stack([tokens[0] for tokens in states]).float()
        else:
            vectors = torch.stack([tokens.float().mean(0) for tokens in states])
        return Encoded(torch.nn.functional.normalize(vectors, dim=-1) if self.config.normalize else vectors)

    def save(self, folder: Path) -> None:
        """Write a SentenceTransformer: Transformer, Pooling and perhaps Normalize."""
        copy_tokenizer(self.folder, folder)
        with quiet_transformers():
            self.trunk.save_pretrained(folder)
        write_json(folder / "sentence_bert_config.json", {
            "max_seq_length": self.config.document_length, "do_lower_case": False,
        })  # fmt: skip
        prompts = {"query": self.config.query_prompt, "document": self.config.document_prompt}
        similarity = "cosine" if self.config.normalize else "dot"
        card = {"model_type": "SentenceTransformer", "prompts": prompts, "similarity_fn_name": similarity}
        write_json(folder / "config_sentence_transformers.json", card)
        pooling = {"embedding_dimension": self.trunk.config.hidden_size, "pooling_mode": self.config.pooling}
        write_json(folder / "1_Pooling" / "config.json", pooling)
        modules = [("", f"{ST}.base.modules.transformer.Transformer")]
        modules.append(("1_Pooling", f"{ST}.sentence_transformer.modules.pooling.Pooling"))
        if self.config.normalize:
            write_json(folder / "2_Normalize" / "config.json", {})
            modules.append(("2_Normalize", f"{ST}.base.modules.normalize.Normalize"))
        write_modules(folder, modules)
