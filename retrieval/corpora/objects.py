"""Documents from Python objects: strings, dicts, tuples, frames and tables, documents of other libraries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ...index.documents import Document
from .lines import Columns, Item
from .reading import Corpus, Part
from .records import ID_KEYS, BadRecords, Fields, as_id
from .tables import arrow_rows, frame_rows, json_row, json_value, wanted_columns

NAME = "documents"


def as_documents(
    items: Iterable[Any], fields: Fields | None = None, *, bad: BadRecords | None = None,
    notice: Callable[[str], None] | None = None,
) -> Corpus:  # fmt: skip
    """Take documents from Python objects, one at a time.

    Parameters
    ----------
    items : iterable, DataFrame or Table
        Each item is a `Document`; a string, whose doc_id is its position ("0", "1", ...); a mapping, whose keys are
        recognised as in files; a tuple ``(id, text)``; or an object of another library with ``page_content`` and
        ``metadata`` (LangChain) or ``text`` and ``metadata`` (LlamaIndex), whose doc_id is its ``id`` or ``id_``, else an
        id in its metadata, else its position. A pandas DataFrame, a pyarrow Table or RecordBatch, or what has
        ``to_arrow()`` is read row by row; NaN is an absent value there.
    fields : Fields, optional
        Which keys or columns hold what; what it leaves open is recognised.
    bad, notice : optional
        As in `reading.read_corpus`.

    Returns
    -------
    Corpus
        An iterator of documents.

    Raises
    ------
    TypeError
        ``items`` is one string, path, document or mapping, or no iterable; or an item is of no known type.
    DatasetError
        A malformed item, named by its position, as in ``documents[3]``.
    """
    fields = fields or Fields()
    if isinstance(items, str | bytes | os.PathLike):
        raise TypeError(f"documents are Python objects: pass a file as a source (sources=[{items!r}]), one text as [text]")
    if isinstance(items, Document | Mapping):
        raise TypeError(f"documents must be an iterable of documents, not one {type(items).__name__}: put it in a list")
    rows = _rows(items, fields, notice)
    numbered = ((NAME, number, item) for number, item in rows)
    return Corpus([Part(NAME, numbered, fields)], fields, bad, notice, flags=False)


def _rows(items: Any, fields: Fields, notice: Callable[[str], None] | None) -> Iterator[tuple[int, Item]]:
    library = type(items).__module__.partition(".")[0]
    if library == "pandas" and hasattr(items, "itertuples"):
        return _table(list(items.columns), frame_rows(items))
    if library != "pyarrow" and hasattr(items, "to_arrow"):
        items, library = items.to_arrow(), "pyarrow"
    if library == "pyarrow" and hasattr(items, "schema"):
        return _arrow(items, fields, notice)
    try:
        iterator = iter(items)
    except TypeError:
        raise TypeError(f"documents must be an iterable of documents, not {type(items).__name__}") from None
    return ((number, _item(number - 1, item)) for number, item in enumerate(iterator, 1))


def _table(columns: list[str], rows: Iterator[Item]) -> Iterator[tuple[int, Item]]:
    yield 1, Columns(columns)
    yield from enumerate(rows, 1)


def _arrow(table: Any, fields: Fields, notice: Callable[[str], None] | None) -> Iterator[tuple[int, Item]]:
    yield 1, Columns(table.schema.names)
    columns = wanted_columns(table.schema, fields, NAME, notice)
    if hasattr(table, "select"):
        table = table.select(columns)
    batches = table.to_batches(1024) if hasattr(table, "to_batches") else [table] if hasattr(table, "num_rows") else table
    yield from enumerate(arrow_rows(batches), 1)


def _item(position: int, item: Any) -> Item:
    if isinstance(item, Document):
        return item
    if isinstance(item, str):
        return Document(doc_id=str(position), text=item)
    if hasattr(item, "_asdict"):
        item = item._asdict()
    try:
        if isinstance(item, Mapping):
            return _checked_keys(item)
        if isinstance(item, tuple):
            return _pair(item)
        for name in ("page_content", "text"):
            text = getattr(item, name, None)
            if isinstance(text, str):
                return _foreign(position, item, text)
    except ValueError as error:
        return error
    hint = "; lists of words are for import_tokens" if isinstance(item, list) else ""
    raise TypeError(
        f"{NAME}[{position}] is of type {type(item).__name__}: Document, str, dict, (id, text), or an object with text and "
        f"metadata is expected{hint}"
    )


def _checked_keys(item: Mapping[Any, Any]) -> Mapping[str, Any]:
    """Return a mapping whose keys are strings; dates, decimals and numpy's scalars become what they are in a table's column."""
    odd = next((key for key in item if not isinstance(key, str)), None)
    if odd is not None:
        raise ValueError(f"the key {odd!r} is no string")
    return {key: _plain(value) for key, value in item.items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | list | dict):
        return value
    try:
        return json_value(value)
    except ValueError:
        return value  # as metadata it is left out, which is told


def _pair(item: tuple[Any, ...]) -> Document:
    if len(item) != 2:
        raise ValueError(f"a tuple must be (id, text), found {len(item)} values")
    doc_id, text = as_id(item[0]), item[1]
    if doc_id is None or not isinstance(text, str):
        raise ValueError(f"a tuple must be (id, text), a string or integer and a string, found {repr(item)[:60]}")
    return Document(doc_id=doc_id, text=text)


def _foreign(position: int, item: Any, text: str) -> Document:
    metadata = json_row(getattr(item, "metadata", None) or {})
    ids = [getattr(item, "id_", None), getattr(item, "id", None), *(metadata.get(key) for key in ID_KEYS)]
    doc_id = next((str(each) for each in ids if isinstance(each, str | int) and each != ""), str(position))
    title = metadata.pop("title", None)
    if title is not None and not isinstance(title, str):
        metadata["title"], title = title, None
    kept = {key: value for key, value in metadata.items() if value is not None}
    return Document(doc_id=doc_id, title=title or "", text=text, metadata=kept)
