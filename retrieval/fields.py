"""Vector fields and their encoders: what a new field is created with, encoders of an index's fields, adding and dropping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..index.arguments import texts_of
from ..index.collection import Collection, NewField, check_field_name
from ..index.dense.config import DenseFieldConfig
from ..index.fde.config import FdeConfig
from ..index.fde.field import source_of
from ..index.manifest import EncoderRecord, FieldRecord
from ..index.multivector.config import MultiVectorConfig
from ..index.nets.config import NetFieldConfig
from ..index.query_bank import check_bank_size, joined_bank
from ..index.representations import Vectors
from .encoders.base import Encoder
from .encoders.methods import MUVERA
from .encoders.registry import check_encoder, encoder_of
from .encoders.shared_pass import SharedPass
from .encoders.specs import STORAGE, EncoderSpec, load_spec, parse_encoder_spec
from .pipelines.expression import parse
from .progress import Progress

BANK_BATCH = 256
FieldEncoders = Mapping[str, "str | EncoderSpec | Encoder | FieldEncoder"]


@dataclass(frozen=True)
class FieldEncoder:
    """The encoder of a field, and how the field keeps its vectors.

    Attributes
    ----------
    encoder : Encoder
    storage : mapping
        Settings of the representation's fields, `encoders.specs.STORAGE`; see `MultiVectorConfig` and `DenseFieldConfig`.
    encoding : mapping or None
        Settings of `FdeConfig`, where the field has encodings of the vectors that the encoder makes for another field.
    """

    encoder: Encoder
    storage: Mapping[str, Any] = field(default_factory=dict)
    encoding: Mapping[str, Any] | None = None

    def new_field(self) -> NewField:
        """Return what the index creates the field with; raises ValueError for storage that the field does not have."""
        encoder, representation = self.encoder, self.encoder.representation
        if self.encoding is not None and representation != "tokens":
            of = self.encoding["of"]
            raise ValueError(f"muvera encodes token vectors, and the field {of} holds {representation} vectors")
        if self.encoding is not None:
            representation = "fde"
        make = _NEW_FIELDS.get(representation)
        if make is None:
            raise ValueError(f"encoder {encoder.kind} makes {representation} vectors, which no field holds")
        for holder, names in STORAGE.items():
            own = STORAGE.get("dense" if representation == "fde" else representation, ())
            if wrong := [name for name in self.storage if name in names and name not in own]:
                found = f"encoder {encoder.kind if self.encoding is None else MUVERA} makes {representation} vectors"
                raise ValueError(f"{found}: {', '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} for {holder} vectors")
        return NewField(encoder=encoder_record(encoder), representation=representation, **make(self))


def _sparse(each: FieldEncoder) -> dict[str, Any]:
    bm25 = getattr(each.encoder, "bm25", None)
    options = {"bm25": asdict(bm25)} if bm25 is not None else {}
    return {"options": options, "vocabulary": getattr(each.encoder, "vocabulary", None)}


def _tokens(each: FieldEncoder) -> dict[str, Any]:
    return {"options": asdict(MultiVectorConfig(dim=each.encoder.dim, **each.storage))}  # type: ignore[union-attr]


def _dense(each: FieldEncoder) -> dict[str, Any]:
    vectors_per_doc = getattr(each.encoder, "vectors_per_doc", 1)  # of encoders that make several
    return {"options": DenseFieldConfig(dim=each.encoder.dim, vectors_per_doc=vectors_per_doc, **each.storage).options()}  # type: ignore[union-attr]


def _nets(each: FieldEncoder) -> dict[str, Any]:
    return {"options": asdict(NetFieldConfig(dim=each.encoder.dim, **each.storage))}  # type: ignore[union-attr]


def _fde(each: FieldEncoder) -> dict[str, Any]:
    config = FdeConfig(token_dim=each.encoder.dim, **(each.encoding or {}))  # type: ignore[union-attr]
    kept = DenseFieldConfig(dim=config.dim, **each.storage)
    return {"options": {"encoding": config.options(), "vectors": kept.options()}}


_NEW_FIELDS: dict[str, Callable[[FieldEncoder], dict[str, Any]]] = {
    "sparse": _sparse,
    "sparse-tokens": lambda each: {"vocabulary": each.encoder.vocabulary},  # type: ignore[union-attr]
    "tokens": _tokens,
    "dense": _dense,
    "fde": _fde,
    "nets": _nets,
}


def is_same_field(record: FieldRecord, each: FieldEncoder) -> bool:
    """Whether a field of an index is what ``each`` would make."""
    return record.encoder.fingerprint == each.encoder.fingerprint and record.options == dict(each.new_field().options)


def check_unfinished(where: str, record: FieldRecord, each: FieldEncoder) -> None:
    """Raise EncoderMismatchError, or ValueError for other storage, unless ``each`` can go on with an unfinished field."""
    check_encoder(record.encoder, each.encoder)
    if not is_same_field(record, each):
        raise ValueError(f"{where}: the unfinished field keeps its vectors with {record.options}: go on so, or remove it")


def encoder_record(encoder: Encoder) -> EncoderRecord:
    """Return what the manifest keeps of an encoder."""
    return EncoderRecord(kind=encoder.kind, fingerprint=encoder.fingerprint, settings=dict(encoder.settings))


def field_encoders(encoders: Sequence[str | EncoderSpec] | FieldEncoders, *, device: str = "cpu") -> dict[str, FieldEncoder]:
    """Load the encoders of new fields.

    Parameters
    ----------
    encoders : sequence of str or EncoderSpec, or mapping of field name to str, EncoderSpec, Encoder or FieldEncoder
        Texts are ``[NAME=]MODEL[,SETTING=VALUE]...``, see `encoders.specs`; a mapping gives the names.
    device : str
        Where models run.

    Raises
    ------
    ValueError, TypeError
        A malformed text or setting, or two fields of one name.
    """
    if isinstance(encoders, str):
        raise TypeError(f"encoders must be a sequence or a mapping, not the string {encoders!r}: write [{encoders!r}]")
    if not isinstance(encoders, Iterable):
        raise TypeError(f"encoders must be a sequence or a mapping, not {type(encoders).__name__}: write {{NAME: encoder}}")
    named: dict[str, FieldEncoder | EncoderSpec] = {}
    loaded: FieldEncoder | EncoderSpec
    pairs: Iterable[tuple[str | None, Any]] = (
        encoders.items() if isinstance(encoders, Mapping) else ((None, each) for each in encoders)
    )
    for name, each in pairs:
        spec = parse_encoder_spec(each) if isinstance(each, str) else each
        if isinstance(spec, EncoderSpec):
            name = name or spec.name
            loaded = spec if spec.kind == MUVERA else FieldEncoder(load_spec(spec, device=device), spec.storage)
        elif name is None:
            raise TypeError(f"an encoder without a field name: write {{NAME: encoder}}, not {type(each).__name__}")
        elif not isinstance(spec, FieldEncoder) and not hasattr(spec, "encode_documents"):
            kind = type(spec).__name__
            raise TypeError(f"the field {name!r}: an encoder is a string, an EncoderSpec or an Encoder, not {kind}")
        else:
            loaded = spec if isinstance(spec, FieldEncoder) else FieldEncoder(spec)
        check_field_name(name)
        if name in named:
            raise ValueError(f"two fields are called {name!r}: name one, as in other={name}")
        named[name] = loaded
    return {name: _of_source(name, each, named) if isinstance(each, EncoderSpec) else each for name, each in named.items()}


def _of_source(name: str, spec: EncoderSpec, named: Mapping[str, FieldEncoder | EncoderSpec]) -> FieldEncoder:
    """Return the field of encodings of another new field's vectors."""
    source = named.get(spec.settings["of"])
    if not isinstance(source, FieldEncoder):
        of = spec.settings["of"]
        fields = ", ".join(each for each, other in named.items() if isinstance(other, FieldEncoder)) or "none"
        raise ValueError(f"the field {name}: encodings of {of!r}, and the token fields to be are {fields}")
    return FieldEncoder(source.encoder, spec.storage, spec.settings)


@dataclass(frozen=True)
class _Recorded:
    """Stands for the encoder of an index's token field, whose vectors are there."""

    kind: str
    fingerprint: str
    settings: Mapping[str, Any]
    dim: int
    representation: str = "tokens"


def _of_index(path: Path | str, spec: EncoderSpec, records: Mapping[str, FieldRecord]) -> FieldEncoder:
    """Return the field of encodings of an index's field."""
    of = spec.settings["of"]
    record = records.get(of)
    if record is None or not record.complete or record.representation != "tokens":
        known = ", ".join(name for name, each in records.items() if each.representation == "tokens" and each.complete)
        raise ValueError(f"{path}: encodings of {of!r}, and the token fields are {known or 'none'}")
    encoder: Any = _Recorded(**asdict(record.encoder), dim=record.options["dim"])
    return FieldEncoder(encoder, spec.storage, spec.settings)


def index_encoder(record: FieldRecord, *, model: str | None = None, device: str = "cpu") -> Encoder:
    """Load the encoder that made a field, and hold it to the field's fingerprint.

    Parameters
    ----------
    record : FieldRecord
    model : str or None
        Where the encoder's model is now, when it has moved.
    device : str
        Where a model runs.

    Raises
    ------
    EncoderMismatchError
        The encoder that the settings give today is another one.
    """
    overrides = {"device": device} if "model" in record.encoder.settings else {}
    return encoder_of(record.encoder, model=model, **overrides)


def index_encoders(
    records: Mapping[str, FieldRecord], *, models: Mapping[str, str] | None = None, device: str = "cpu"
) -> dict[str, Encoder]:
    """Load the encoders of an index's complete fields; parameters and errors are those of `index_encoder`.

    Raises
    ------
    ValueError
        ``models`` names a field that is not there.
    """
    models = models or {}
    unknown = sorted(set(models) - set(records))
    if unknown:
        raise ValueError(f"a model for the field {unknown[0]!r}; the fields are {', '.join(records)}")
    sources = {name: source_of(records, name) or name for name, record in records.items() if record.complete}
    loaded = {
        name: index_encoder(records[name], model=models.get(name), device=device) for name in dict.fromkeys(sources.values())
    }
    return {name: loaded[source] for name, source in sources.items()}


def add_field(
    path: Path | str, spec: str | EncoderSpec, *, encoder: Encoder | None = None, search: str | None = None,
    device: str = "cpu", progress: Progress | None = None, commit_every_s: float = 120.0,
) -> int:  # fmt: skip
    """Add a vector field to an index, filled from its stored texts; run again after an interruption, it continues.

    Parameters
    ----------
    path : path
        The index folder. Where an earlier run has filled the field already, there is nothing left to do.
    spec : str or EncoderSpec
        ``[NAME=]MODEL[,SETTING=VALUE]...``.
    encoder : Encoder or None
        The encoder at hand; None: it is loaded as ``spec`` has it.
    search : str or None
        A new default search expression, once the field is complete; None keeps the one there is.
    device : str
        Where a model runs.
    progress : callable or None
        Called with the number of documents that the field has.
    commit_every_s : float
        Seconds between commits.

    Returns
    -------
    int
        Documents that were encoded.

    Raises
    ------
    ValueError
        There is another field of this name.
    EncoderMismatchError
        An unfinished field of this name was made by another encoder.
    """
    spec = spec if isinstance(spec, EncoderSpec) else parse_encoder_spec(spec)
    with Collection.open(path) as collection:
        record = collection.manifest.fields.get(spec.name)
        names = [*collection.manifest.fields, *([] if record else [spec.name])]
        if search is not None:
            check_search(search, names)
        if spec.kind == MUVERA:
            used = _of_index(path, spec, collection.manifest.fields)
        else:
            used = FieldEncoder(encoder or load_spec(spec, device=device), spec.storage)
        if record is None:
            collection.add_field(spec.name, used.new_field())
            collection.commit()
        elif not record.complete:
            check_unfinished(f"{path}, {spec.name}", record, used)
        elif not is_same_field(record, used):
            raise ValueError(f"{path}: there is a field {spec.name!r} already: drop it first, or choose another name")
        shared = SharedPass({spec.name: used.encoder})

        def encode(texts: list[str]) -> Vectors:
            return shared.encode_documents(texts)[spec.name]

        texts = None if spec.kind == MUVERA else encode
        n_encoded = collection.fill(spec.name, texts, progress=progress, commit_every_s=commit_every_s)
        if search not in (None, collection.search):
            collection.search = search
            collection.commit()
    return n_encoded


def set_query_bank(
    path: Path | str, name: str, queries: Sequence[str] | None, *, encoder: Encoder | None = None, model: str | None = None,
    device: str = "cpu", progress: Progress | None = None,
) -> int:  # fmt: skip
    """Keep encoded queries with a dense field, or one of encodings, for searches with ``bank_beta``; in place of those it has.

    Parameters
    ----------
    path : path
        The index folder.
    name : str
        The field.
    queries : sequence of str or None
        1 to 20,000 texts; None: the field's bank is dropped.
    encoder : Encoder or None
        The field's encoder at hand; None: it is loaded.
    model, device
        Where it is and runs, as in `index_encoder`.
    progress : callable or None
        Called with the number of queries that are encoded.

    Returns
    -------
    int
        Queries of the bank.

    Raises
    ------
    ValueError
        No such field, no queries, or too many.
    RepresentationError
        The field keeps no bank.
    EncoderMismatchError
        The encoder is not the one that made the field.
    """
    with Collection.open(path) as collection:
        bank: Any = None
        if queries is not None:
            texts, field = texts_of(queries, "queries"), collection.snapshot().field(name)
            check_bank_size(f"{path}, field {name}", field.record, len(texts))
            if encoder is not None:
                check_encoder(field.record.encoder, encoder)
            used: Any = encoder or index_encoder(field.record, model=model, device=device)
            batches = []
            for first in range(0, len(texts), BANK_BATCH):
                batches.append(used.encode_queries(texts[first : first + BANK_BATCH]))
                if progress:
                    progress(min(first + BANK_BATCH, len(texts)))
            bank = joined_bank(batches)
        collection.set_query_bank(name, bank)
        collection.commit()
    return 0 if bank is None else len(bank)


def drop_field(path: Path | str, name: str, *, search: str | None = None) -> None:
    """Drop a vector field of an index.

    Parameters
    ----------
    search : str or None
        A new default search expression; needed when the one there is names the field.

    Raises
    ------
    ValueError
        There is no such field, it is the only one, or the default search expression names it.
    """
    with Collection.open(path) as collection:
        collection.drop_field(name)
        remaining = [each for each in collection.manifest.fields if each != name]
        collection.search = search or collection.search
        if collection.search is not None:
            if search is None and name in parse(collection.search).fields:
                raise ValueError(
                    f"{path}: the default search {collection.search!r} names {name!r}: give another one (--search EXPR)"
                )
            check_search(collection.search, remaining)
        collection.commit()


def set_default_search(path: Path | str, search: str) -> None:
    """Store another default search expression in an index; raises ValueError when it does not fit the fields."""
    with Collection.open(path) as collection:
        check_search(search, collection.fields)
        collection.search = search
        collection.commit()


def check_search(search: str, names: Iterable[str]) -> None:
    """Raise ValueError for a malformed search expression, or one that names no field."""
    known = list(names)
    unknown = [name for name in parse(search).fields if name not in known]
    if unknown:
        raise ValueError(f"the search {search!r} names {unknown[0]!r}; the fields are {', '.join(known)}")
