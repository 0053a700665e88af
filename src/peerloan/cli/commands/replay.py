"""`peerloan replay`: compute stored decisions again and compare."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import click

from peerloan.cli.console import (
    JSON,
    CommandError,
    expect_many_records,
    note,
    open_store,
    print_json,
    progress,
)
from peerloan.cli.ledger_options import Moment, ledger_database
from peerloan.database import Database
from peerloan.formatting import plural
from peerloan.ledger.audit.replay import Replay, ReplayReport, count_decisions
from peerloan.ledger.queries import find_decisions, stream_decisions, was_purged
from peerloan.registry import ONNX_TOLERANCE
from peerloan.uuid7 import text as id_text

# Characters of a long value that are shown before and after the first difference.
_BEFORE, _AFTER = 20, 60


class _Id(click.ParamType[bytes]):
    """Parses a decision's id."""

    name = "id"

    def convert(self, value: object, param: object, ctx: object) -> bytes:  # noqa: ARG002
        try:
            return UUID(str(value)).bytes
        except ValueError:
            raise click.BadParameter(
                f"expected the id of a decision, which is a UUID, given {value!r}"
            ) from None


@click.command()
@click.option("--since", type=Moment(), metavar="MOMENT", help="Decisions from this moment on.")
@click.option("--until", type=Moment(), metavar="MOMENT", help="Decisions before this moment.")
@click.option(
    "--id", "decision_ids", type=_Id(), multiple=True, help="Only this decision; repeatable."
)
@JSON
def replay(
    since: int | None, until: int | None, decision_ids: tuple[bytes, ...], as_json: bool
) -> None:
    """Compute decisions again and compare them bit for bit.

    Uses the stored versions that made them. The exit code is 1 if a decision differs or can't be
    computed. A MOMENT is a day (its beginning in UTC) or a time such as 2026-11-25T08:30:00Z.
    """
    if decision_ids and (since is not None or until is not None):
        raise click.UsageError("--id can't be used with --since or --until; leave these out")
    expect_many_records()
    database = ledger_database()
    database.check()
    replaying = Replay(open_store())
    began = time.monotonic()
    absent: dict[bytes, str] = {}
    if decision_ids:
        for decision_id in dict.fromkeys(decision_ids):  # one by one: they may be large
            if decisions := find_decisions(database, [decision_id]):
                replaying.add(list(decisions.values()))
            else:
                purged = was_purged(database, decision_id)
                absent[decision_id] = "was purged" if purged else "is not in the ledger"
    else:
        _replay_all(replaying, database, since or 0, until)
    seconds = time.monotonic() - began
    report = replaying.report
    if as_json:
        print_json(_json(report, absent))
    else:
        for line in _lines(report, absent):
            click.echo(line)
        rate = report.decisions / max(seconds, 1e-3)
        note(f"{plural(report.decisions, 'decision')} in {seconds:.1f} s ({rate:,.0f}/s)")
    if absent or not report.ok:
        raise CommandError(f"{database}: not every decision was reproduced")


def _replay_all(replaying: Replay, database: Database, since: int, until: int | None) -> None:
    total = count_decisions(database, since, until)
    what = f"replaying {database}"
    began = time.monotonic()
    with progress() as show:
        for batch in stream_decisions(database, since, until):
            replaying.add(batch)
            done = replaying.report.decisions
            rate = done / max(time.monotonic() - began, 1e-3)
            show(what, min(done / max(total, 1), 0.999), f"{rate:,.0f} decisions/s")
        show(what, 1.0)


def _json(report: ReplayReport, absent: dict[bytes, str]) -> dict[str, Any]:
    return {
        "decisions": report.decisions,
        "identical": report.identical,
        "near": report.near,
        "different": dict(report.different),
        "differences": [each._asdict() for each in report.differences],
        "unreadable": report.unreadable,
        "unreadable_shown": [each._asdict() for each in report.unreadable_shown],
        "versions": [
            {
                "version": version.version,
                "digest": version.digest,
                "why": report.why_missing[version],
                "decisions": decisions,
            }
            for version, decisions in report.missing.items()
        ],
        "absent": [{"id": id_text(each), "why": why} for each, why in absent.items()],
    }


def _lines(report: ReplayReport, absent: dict[bytes, str]) -> Iterator[str]:
    """Yield the lines of the report, what is wrong first."""
    for version, decisions in report.missing.items():
        verb = "refers" if decisions == 1 else "refer"
        yield f"{report.why_missing[version]}; {plural(decisions, 'decision')} {verb} to it"
    for decision_id, why in absent.items():
        yield f"{id_text(decision_id)}: {why}"
    for unreadable in report.unreadable_shown:
        yield f"{unreadable.id}: {unreadable.why}"
    if not_shown := report.unreadable - len(report.unreadable_shown):
        yield f"and {not_shown:,} more whose inputs can't be read"
    for difference in report.differences:
        stored, computed = _show_difference(difference.kept, difference.found)
        yield f"{difference.id}: {difference.field}: stored {stored}, computed {computed}"
    if not_shown := report.different.total() - len(report.differences):
        yield f"and {plural(not_shown, 'more difference')}"
    if report.different:
        fields = ", ".join(f"{count:,} × {name}" for name, count in report.different.items())
        yield f"differences: {fields}"
    if report.near:
        yield (
            f"{report.near:,} differ by at most {ONNX_TOLERANCE:g} in the probability: ONNX "
            "versions were replayed with another runtime or processor than they were decided with"
        )
    if report.decisions:
        verb = "is" if report.decisions == 1 else "are"
        every = plural(report.decisions, "decision")
        yield f"{report.identical:,} of {every} {verb} identical, bit for bit"
    elif not absent:
        yield "no decisions: nothing was replayed"


def _show_difference(stored: object, computed: object) -> tuple[str, str]:
    """Show two values; long ones from shortly before the first difference."""
    before, after = (
        json.dumps(value, ensure_ascii=False, default=str) for value in (stored, computed)
    )
    same = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    return _part(before, same - _BEFORE), _part(after, same - _BEFORE)


def _part(text: str, start: int) -> str:
    start = max(start, 0)
    end = start + _BEFORE + _AFTER
    return f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}"
