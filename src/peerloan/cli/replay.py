"""The command that replays decisions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import click

from peerloan.cli.console import JSON, No, expect_many_records, note, print_json, progress, store
from peerloan.cli.ledger_options import Moment, ledger_database
from peerloan.database import Database
from peerloan.ledger.audit.replay import Replay, Report, count
from peerloan.ledger.queries import find, stream, was_purged
from peerloan.loan.text import counted
from peerloan.registry import ONNX_TOLERANCE
from peerloan.uuid7 import text as id_text

# Letters of a long value that are shown before and after it begins to differ.
_BEFORE, _AFTER = 20, 60


class _Id(click.ParamType[bytes]):
    """A decision's id."""

    name = "id"

    def convert(self, value: object, param: object, ctx: object) -> bytes:  # noqa: ARG002
        try:
            return UUID(str(value)).bytes
        except ValueError:
            raise click.BadParameter(f"expected a decision's id, given {value!r}") from None


@click.command()
@click.option("--since", type=Moment(), metavar="MOMENT", help="Decisions from this moment on.")
@click.option("--until", type=Moment(), metavar="MOMENT", help="Decisions before this moment.")
@click.option("--id", "wanted", type=_Id(), multiple=True, help="This decision; may be repeated.")
@JSON
def replay(since: int | None, until: int | None, wanted: tuple[bytes, ...], as_json: bool) -> None:
    """Compute stored decisions anew by the stored versions, and prove that they are the same.

    The exit code is 1 if any is not, or can't be computed. A MOMENT is a day (its begin in UTC) or
    a time such as 2026-11-25T08:30:00Z.
    """
    if wanted and (since is not None or until is not None):
        raise click.UsageError("--id names decisions of any time: leave --since and --until out")
    expect_many_records()
    database = ledger_database()
    database.check()
    replaying = Replay(store())
    began = time.monotonic()
    absent: dict[bytes, str] = {}
    if wanted:
        for each in dict.fromkeys(wanted):  # one by one: they may be large
            if found := find(database, [each]):
                replaying.add(list(found.values()))
            else:
                purged = was_purged(database, each)
                absent[each] = "was purged" if purged else "is not in the ledger"
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
        note(f"{counted(report.decisions, 'decision')} in {seconds:.1f} s ({rate:,.0f}/s)")
    if absent or not report.ok:
        raise No(f"{database}: not every decision was reproduced")


def _replay_all(replaying: Replay, database: Database, since: int, until: int | None) -> None:
    total = count(database, since, until)
    what = f"replaying {database}"
    began = time.monotonic()
    with progress() as show:
        for some in stream(database, since, until):
            replaying.add(some)
            done = replaying.report.decisions
            rate = done / max(time.monotonic() - began, 1e-3)
            show(what, min(done / max(total, 1), 0.999), f"{rate:,.0f} decisions/s")
        show(what, 1.0)


def _json(report: Report, absent: dict[bytes, str]) -> dict[str, Any]:
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


def _lines(report: Report, absent: dict[bytes, str]) -> Iterator[str]:
    """The report for people, what is wrong first."""
    for version, decisions in report.missing.items():
        verb = "refers" if decisions == 1 else "refer"
        yield f"{report.why_missing[version]}; {counted(decisions, 'decision')} {verb} to it"
    for wanted, why in absent.items():
        yield f"{id_text(wanted)}: {why}"
    for unreadable in report.unreadable_shown:
        yield f"{unreadable.id}: {unreadable.why}"
    if more := report.unreadable - len(report.unreadable_shown):
        yield f"and {more:,} more whose inputs can't be read"
    for each in report.differences:
        kept, found = _apart(each.kept, each.found)
        yield f"{each.id}: {each.field}: kept {kept}, found {found}"
    if more := report.different.total() - len(report.differences):
        yield f"and {counted(more, 'more difference')}"
    if report.different:
        fields = ", ".join(f"{count:,} × {name}" for name, count in report.different.items())
        yield f"differences: {fields}"
    if report.near:
        yield (
            f"{report.near:,} are the same within {ONNX_TOLERANCE:g} of the probability: here ONNX "
            "versions run under another runtime or processor than they were made with"
        )
    if report.decisions:
        verb = "is" if report.decisions == 1 else "are"
        every = counted(report.decisions, "decision")
        yield f"{report.identical:,} of {every} {verb} identical, bit for bit"
    elif not absent:
        yield "there are no such decisions: nothing was replayed, and nothing is proven"


def _apart(kept: object, found: object) -> tuple[str, str]:
    """Two values; of long ones, where they begin to differ."""
    then, now = (json.dumps(each, ensure_ascii=False, default=str) for each in (kept, found))
    same = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), 0)
    return _part(then, same - _BEFORE), _part(now, same - _BEFORE)


def _part(text: str, start: int) -> str:
    start = max(start, 0)
    end = start + _BEFORE + _AFTER
    return f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}"
