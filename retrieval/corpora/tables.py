"""Records from Parquet files, Arrow tables and pandas frames, with values as JSON has them.

Dates and times become ISO strings (of microseconds), durations seconds, decimals numbers, structs objects; NaN is an absent
value. Lists of anything but strings, maps and binary columns are not kept as metadata unless they are named: a column of
embeddings beside the texts is never read. A value that Python's own types cannot hold is an error that names row and column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from ...index.errors import DatasetError
from .lines import Columns, Item, Items
from .records import Fields, resolve

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
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return json_value(value.tolist())
    raise ValueError(f"a value of type {type(value).__name__} cannot be kept: turn it into text, or leave it out")


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
    names = schema.names
    if len(set(names)) < len(names):
        raise DatasetError(f"{name}: two columns have the name {next(each for each in names if names.count(each) > 1)!r}")
    fields, _ = resolve(fields, names)
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
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _keeps(kind.value_type)
    if types.is_nested(kind) and not types.is_map(kind) and hasattr(kind, "value_type"):  # lists of all layouts
        items = kind.value_type
        return str(items.value_type if types.is_dictionary(items) else items) in ("string", "large_string", "string_view")
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return not (types.is_nested(kind) or binary or types.is_interval(kind) or str(kind) == "binary_view")


def arrow_rows(batches: Iterable[Any]) -> Iterator[Item]:
    """Yield rows of Arrow record batches as mappings, or as a ValueError where Python or JSON cannot hold a value."""
    for batch in batches:
        try:
            batch = _microseconds(batch)
            rows = batch.to_pylist()
        except (ValueError, OverflowError):  # UnicodeDecodeError and ArrowInvalid are ValueErrors
            rows = (_one_row(batch.slice(i, 1)) for i in range(batch.num_rows))
        for row in rows:
            try:
                yield row if isinstance(row, ValueError) else json_row(row)
            except ValueError as error:
                yield error


def _microseconds(batch: Any) -> Any:
    """Cut times of nanoseconds to the microseconds of Python's own types."""
    for i, column in enumerate(batch.schema):
        coarser = _coarser(column.type)
        if coarser != column.type:
            batch = batch.set_column(i, column.name, batch.column(i).cast(coarser, safe=False))
    return batch


def _coarser(kind: Any) -> Any:
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_struct(kind):
        return pa.struct([field.with_type(_coarser(field.type)) for field in kind])
    if types.is_dictionary(kind) and _coarser(kind.value_type) != kind.value_type:
        return _coarser(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind):
        return (pa.list_ if types.is_list(kind) else pa.large_list)(kind.value_field.with_type(_coarser(kind.value_type)))
    if not types.is_temporal(kind) or getattr(kind, "unit", "") != "ns":
        return kind
    if types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if types.is_duration(kind) else pa.time64("us")


def _one_row(row: Any) -> Any:
    record = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            (record[name],) = column.to_pylist()
        except UnicodeDecodeError:
            return ValueError(f"column {name!r}: a string is not UTF-8")
        except (ValueError, OverflowError) as error:
            return ValueError(f"column {name!r} ({column.type}) holds what cannot be read: {error}")
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
