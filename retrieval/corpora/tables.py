"""Records from Parquet files, Arrow tables and pandas frames, with values as JSON has them.

Dates and times become ISO strings, durations seconds, decimals numbers, structs objects; NaN is an absent value. Lists of
anything but strings, maps and binary columns are not kept as metadata unless they are named: a column of embeddings beside
the texts is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from ...index.errors import DatasetError
from .lines import Columns, Item, Items
from .records import Fields, Kept, resolve

PARQUET_BATCH_ROWS = 1024
Notice = Callable[[str], None]


def json_value(value: Any) -> Any:
    """Return a value of a table as JSON has it; raises ValueError for what cannot be one."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if type(value).__name__ in ("NAType", "NaTType") or (
        isinstance(value, float | date | Decimal | timedelta) and value != value
    ):
        return None  # NaN, NaT, pandas.NA
    if isinstance(value, float):
        return float(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return Kept({str(key): json_value(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return json_value(value.tolist())
    raise ValueError(f"a value of type {type(value).__name__} cannot be kept")


def json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with values as JSON has them; raises ValueError that names the column."""
    values = {}
    for name, value in row.items():
        try:
            values[name] = json_value(value)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from error
    return values


def parquet_rows(path: Path, fields: Fields | None = None, notice: Notice | None = None) -> Items:
    """Read the columns of a Parquet file that documents need, in batches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without these two a whole row group is fetched at once.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            names = file.schema_arrow.names
            yield 1, Columns(names)
            columns = wanted_columns(file.schema_arrow, fields or Fields(), str(path), notice)
            batches = file.iter_batches(PARQUET_BATCH_ROWS, columns=columns, use_threads=False)
            yield from enumerate(arrow_rows(batches), 1)
    except pa.ArrowException as error:
        raise DatasetError(f"not a readable Parquet file: {error}", path=path) from error


def wanted_columns(schema: Any, fields: Fields, name: str, notice: Notice | None = None) -> list[str]:
    """Choose the columns that documents need, and tell which others are not kept because of their type."""
    fields, _ = resolve(fields, schema.names)
    wanted = {*fields.named, *(fields.metadata or ())}
    left_out = []
    if fields.metadata is None:
        for column in schema:
            if _keeps(column.type):
                wanted.add(column.name)
            elif column.name not in wanted:
                left_out.append(f"{column.name!r} ({column.type})")
    if left_out and notice:
        notice(f"{name}: not kept as metadata: {', '.join(left_out)}; name a column with --metadata-field to keep it")
    return [column for column in schema.names if column in wanted]


def _keeps(kind: Any) -> bool:
    """Whether values of an Arrow type are kept as metadata: scalars, lists of strings and structs of what is kept."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return all(_keeps(child.type) for child in kind)
    if types.is_list(kind) or types.is_large_list(kind):
        return bool(types.is_string(kind.value_type) or types.is_large_string(kind.value_type))
    if types.is_dictionary(kind):
        return _keeps(kind.value_type)
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return not (types.is_nested(kind) or binary or types.is_interval(kind) or str(kind) == "binary_view")


def arrow_rows(batches: Iterable[Any]) -> Iterator[Item]:
    """Yield rows of Arrow record batches as mappings, or as a ValueError where a string is not UTF-8 or a value not JSON's."""
    for batch in batches:
        batch = _microseconds(batch)
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:
            rows = (_one_row(batch.slice(i, 1)) for i in range(batch.num_rows))
        for row in rows:
            try:
                yield row if isinstance(row, ValueError) else json_row(row)
            except ValueError as error:
                yield error


def _microseconds(batch: Any) -> Any:
    """Cut times of nanoseconds to the microseconds of Python's own types."""
    import pyarrow as pa
    import pyarrow.types as types

    for i, column in enumerate(batch.schema):
        kind = column.type
        if types.is_timestamp(kind) and kind.unit == "ns":
            coarser = pa.timestamp("us", kind.tz)
        elif types.is_duration(kind) and kind.unit == "ns":
            coarser = pa.duration("us")
        elif types.is_time64(kind) and kind.unit == "ns":
            coarser = pa.time64("us")
        else:
            continue
        batch = batch.set_column(i, column.name, batch.column(i).cast(coarser, safe=False))
    return batch


def _one_row(row: Any) -> Any:
    try:
        (record,) = row.to_pylist()
    except UnicodeDecodeError:
        return ValueError("a string is not UTF-8")
    return record


def frame_rows(frame: Any) -> Iterator[Item]:
    """Yield rows of a pandas DataFrame as mappings; the index is not read."""
    names: Sequence[Any] = list(frame.columns)
    if len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"the columns of a DataFrame need different names that are strings, found {names}"[:200])
    for row in frame.itertuples(index=False, name=None):
        try:
            yield json_row(dict(zip(names, row, strict=True)))
        except ValueError as error:
            yield error
