"""Export of the ledger as a table.

Each row is a decision, with the challenger's probability and the outcome.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from sqlalchemy import Connection, Row, Table, func, select

from peerloan import uuid7
from peerloan.book import open_writer
from peerloan.book.writer import ENDINGS
from peerloan.database.engine import Database
from peerloan.database.errors import LedgerError
from peerloan.database.snapshot import snapshot
from peerloan.database.tables import challenges, decisions, outcomes
from peerloan.ledger.queries import in_time_range, stream_decisions, versions_by_number
from peerloan.ledger.records import StoredDecision, Version
from peerloan.ledger.stored_inputs import decode_loan
from peerloan.loan import Definition
from peerloan.model import BANDS
from peerloan.registry import RegistryError, Store

_BEFORE: dict[str, pa.DataType] = {
    "id": pa.string(),
    "time": pa.timestamp("ms", tz="UTC"),
    "loan_id": pa.string(),
}
_AFTER: dict[str, pa.DataType] = {
    "inputs": pa.string(),
    "margin": pa.float64(),
    "probability": pa.float64(),
    "late": pa.bool_(),
    "threshold": pa.float64(),
    "band": pa.string(),
    "reasons": pa.string(),
    "warnings": pa.string(),
    "model_version": pa.string(),
    "model_digest": pa.string(),
    "source": pa.string(),
    "caller": pa.string(),
    "request_id": pa.string(),
    "idempotency_key": pa.string(),
    "challenger_version": pa.string(),
    "challenger_probability": pa.float64(),
    "outcome": pa.bool_(),
    "outcome_date": pa.date32(),
}
# Columns that contain a decision's values as they are stored.
_STORED = (
    *("loan_id", "inputs", "margin", "probability", "late", "reasons", "warnings"),
    *("source", "caller", "request_id", "idempotency_key"),
)
# Prefix of an input's column if the export has another column with the input's name.
_PREFIX = "input."
# Rows of a batch, which is a row group in Parquet.
BATCH_ROWS = 20_000
_encode = msgspec.json.encode


class ExportResult(NamedTuple):
    """Counts of an export: rows, rows with an outcome, and rows by version outside the store."""

    rows: int
    outcomes: int
    unknown: dict[str, int]


class _Input(NamedTuple):
    """A column for an input: its field, its name, and whether it contains numbers."""

    field: str
    column: str
    is_number: bool


def export(
    database: Database,
    store: Store,
    path: Path,
    *,
    since_ms: int = 0,
    until_ms: int | None = None,
    overwrite: bool = False,
    spreadsheet_safe: bool = False,
    progress: Callable[[float], None] = lambda _: None,
    batch_rows: int = BATCH_ROWS,
) -> ExportResult:
    """Write decisions as CSV or Parquet, the oldest first. The file's ending sets the format.

    Writes the decisions made from `since_ms` on and before `until_ms` (milliseconds since 1970)
    that were not purged. `spreadsheet_safe` is that of `open_writer`. `progress` is called with the
    share that is done. Reads at most `batch_rows` decisions, or 8 MB of loans, at once.

    If the export fails, it leaves no file. Raises LedgerError, or BookError for a file that can't
    be written.
    """
    if not path.name.lower().endswith(ENDINGS):
        raise LedgerError(f"{path}: expected a name that ends in {', '.join(ENDINGS)}")
    with snapshot(database) as connection:
        versions = versions_by_number(connection)
        names = {number: version.version for number, version in versions.items()}
        definitions = _definitions(store, versions)
        inputs = _inputs(definitions)
        total = connection.execute(
            select(func.count()).where(in_time_range(decisions.c.id, since_ms, until_ms))
        ).scalar_one()
        # The snapshot of these tables is older than that of the decisions. Otherwise a purge in
        # between could leave a decision without its outcome.
        fetch_rows = max(batch_rows // 4, 1)
        challenger_rows, outcome_rows = (
            _RowsByDecision(connection, table, since_ms, until_ms, fetch_rows)
            for table in (challenges, outcomes)
        )
        rows = with_outcome = 0
        unknown: Counter[str] = Counter()
        schema = _schema(inputs)
        with open_writer(path, schema, overwrite, spreadsheet_safe) as writer:
            for batch in stream_decisions(database, since_ms, until_ms, batch_rows):
                values = _decision_columns(batch) | _input_columns(batch, inputs, definitions)
                values |= _challenger_columns(batch, challenger_rows, names)
                values |= _outcome_columns(batch, outcome_rows)
                arrays = [pa.array(values[field.name], field.type) for field in schema]
                writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema))
                rows += len(batch)
                with_outcome += sum(late is not None for late in values["outcome"])
                unknown.update(d.version.version for d in batch if d.version not in definitions)
                progress(rows / max(total, rows))
    return ExportResult(rows, with_outcome, dict(unknown))


def _definitions(store: Store, versions: Mapping[int, Version]) -> dict[Version, Definition]:
    """Return the definitions of the versions that are still in the store."""
    definitions = {}
    for version in versions.values():
        with contextlib.suppress(RegistryError):
            if store.read(version.version)[1] == version.digest:
                definitions[version] = store.definition(version.version)
    return definitions


def _inputs(definitions: Mapping[Version, Definition]) -> list[_Input]:
    """Return one column for each field, in the order of the versions and their definitions."""
    numbers: dict[str, bool] = {}
    for definition in definitions.values():
        for field in definition.fields:
            numbers[field.name] = numbers.get(field.name, True) and field.is_number
    reserved = {*_BEFORE, *_AFTER}
    return [
        _Input(name, _PREFIX + name if name in reserved else name, is_number)
        for name, is_number in numbers.items()
    ]


def _schema(inputs: Sequence[_Input]) -> pa.Schema:
    types = {each.column: pa.float64() if each.is_number else pa.string() for each in inputs}
    return pa.schema(list((_BEFORE | types | _AFTER).items()))


def _decision_columns(batch: Sequence[StoredDecision]) -> dict[str, list[Any]]:
    """Return the columns of the decisions themselves."""
    columns: dict[str, list[Any]] = {
        "id": [uuid7.text(each.id) for each in batch],
        "time": [each.time_ms for each in batch],
        "threshold": [each.version.threshold for each in batch],
        "band": [BANDS[each.band] for each in batch],
        "model_version": [each.version.version for each in batch],
        "model_digest": [each.version.digest for each in batch],
    }
    return columns | {name: [getattr(each, name) for each in batch] for name in _STORED}


def _input_columns(
    batch: Sequence[StoredDecision],
    inputs: Sequence[_Input],
    definitions: Mapping[Version, Definition],
) -> dict[str, list[Any]]:
    """Return the columns of the inputs; empty where the version is not in the store."""
    columns: dict[str, list[Any]] = {each.column: [] for each in inputs}
    for decision in batch:
        # Decode one by one: a loan takes many times as much memory as its JSON.
        loan = decode_loan(decision.inputs.encode()) if decision.version in definitions else {}
        for field, column, is_number in inputs:
            value = loan.get(field)
            columns[column].append(_number(value) if is_number else _text(value))
    return columns


def _challenger_columns(
    batch: Sequence[StoredDecision], challenger_rows: _RowsByDecision, names: Mapping[int, str]
) -> dict[str, list[Any]]:
    """Return the columns of the challenger; `names` are those of the versions."""
    rows = [challenger_rows.of(decision.id) for decision in batch]
    return {
        "challenger_version": [row and names[row.version] for row in rows],
        "challenger_probability": [row and row.probability for row in rows],
    }


def _outcome_columns(
    batch: Sequence[StoredDecision], outcome_rows: _RowsByDecision
) -> dict[str, list[Any]]:
    """Return the columns of the outcome that counts."""
    rows = [outcome_rows.of(decision.id) for decision in batch]
    return {
        "outcome": [row and row.late for row in rows],
        "outcome_date": [row and row.observed for row in rows],
    }


def _number(value: object) -> float | None:
    # A field that the version did not use may have any value.
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else _encode(value).decode()


class _RowsByDecision:
    """Rows of another table by decision, read in the order of the decisions' ids."""

    def __init__(
        self,
        connection: Connection,
        table: Table,
        since_ms: int,
        until_ms: int | None,
        fetch_rows: int,
    ) -> None:
        rows = select(table).where(in_time_range(table.c.decision_id, since_ms, until_ms))
        # If a decision has several rows, the last one counts: it has the highest number.
        rows = rows.order_by(table.c.decision_id, *table.primary_key)
        self._rows = iter(connection.execute(rows, execution_options={"yield_per": fetch_rows}))
        self._next = self._take()

    def _take(self) -> tuple[bytes, Row[Any]] | None:
        row = next(self._rows, None)
        return None if row is None else (row.decision_id.bytes, row)

    def of(self, decision_id: bytes) -> Row[Any] | None:
        """Return the row of a decision, or None. The id must be above that of the previous call."""
        row = None
        while self._next is not None and self._next[0] <= decision_id:
            if self._next[0] == decision_id:
                row = self._next[1]
            self._next = self._take()
        return row
