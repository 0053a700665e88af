"""`peerloan models`: the versions of the store, which of them serve, and the history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from peerloan.cli.console import (
    AIM,
    BOOK,
    JSON,
    CommandError,
    note,
    note_lines,
    print_json,
    print_table,
    progress,
    store,
)
from peerloan.cli.ledger_options import ledger_database
from peerloan.database import LedgerError
from peerloan.formatting import plural
from peerloan.ledger.audit.replay import refers_to
from peerloan.model import Policy
from peerloan.registry import AliasState, BundleError, ChangeReason, Manifest, RegistryError, Store

_WHY = click.option("--why", default="", help="The reason, for the history.")
_VERSION = click.argument("version")


@click.group()
def models() -> None:
    """Manage versions and choose which one serves."""


@models.command("list")
@JSON
def list_models(as_json: bool) -> None:
    """List all versions, the oldest first, and the history."""
    here = store()
    state = here.state()
    cut_short = [*_cut_short(here)]
    rows = [_row(here, state, version) for version in here.versions()]
    history, (explanations, faults) = here.history(), here.explanations()
    for fault in (*faults, *cut_short):
        note(f"note: {fault}")
    if as_json:
        changes = [_described(each, explanations.get(each.number)) for each in history]
        print_json({"versions": rows, "history": changes})
        return
    if not rows:
        note(f"no versions in {here.root}")
        return
    columns = ("version", "alias", "auc", "loans", "trained on", "created")
    cells = [["" if row[name] is None else str(row[name]) for name in columns] for row in rows]
    print_table(columns, cells)
    if history:
        click.secho("\nhistory", bold=True)
        print_table(
            ("state", "when", "who", "what", "version", "why"),
            [_history_row(each, explanations.get(each.number)) for each in history],
        )


@models.command()
@_VERSION
@JSON
def show(version: str, as_json: bool) -> None:
    """Show the manifest of a version."""
    here = store()
    manifest = here.manifest(version)
    aliases = _alias(here.state(), version)
    if as_json:
        print_json(msgspec.to_builtins(manifest) | {"alias": aliases})
        return
    trained = manifest.trained_on
    rows = [
        ("version", version),
        ("alias", aliases),
        ("model", f"{manifest.model} ({manifest.candidate}, {manifest.kind})"),
        ("created", manifest.created),
        (
            "trained on",
            f"{trained.source}: {plural(trained.loans, 'loan')}, {trained.late:,} late",
        ),
        ("fingerprint", trained.fingerprint),
        *_recalibrated_rows(manifest),
        ("threshold", f"{manifest.policy.threshold} ({_aim(manifest)})"),
        *((f"held-out {name}", f"{value:.6g}") for name, value in manifest.metrics.items()),
        *((name, plural(entry.bytes, "byte")) for name, entry in manifest.files.items()),
    ]
    print_table(("", ""), rows)


@models.command()
@_VERSION
@_WHY
@click.option(
    "--breaking", is_flag=True, help="Promote even if requests that are valid today would fail."
)
def promote(version: str, why: str, breaking: bool) -> None:
    """Make a version the champion.

    Running services follow within two seconds.
    """
    state = store().promote(version, why, breaking)
    note(f"champion: {state.champion} (state {state.number})")


@models.command()
@_VERSION
@_WHY
def challenge(version: str, why: str) -> None:
    """Make a version the challenger.

    Services then score each decision with it too, and count where it differs.
    """
    state = store().challenge(version, why)
    note(f"challenger: {state.challenger} (state {state.number})")


@models.command()
@_WHY
def dismiss(why: str) -> None:
    """Remove the challenger; its version stays in the store."""
    here = store()
    challenger = here.state().challenger
    state = here.dismiss(why)
    note(f"dismissed {challenger}: no challenger (state {state.number})")


@models.command()
@_WHY
def rollback(why: str) -> None:
    """Return to the previous champion.

    Run it again to return to the one before that.
    """
    state = store().rollback(why)
    note(f"champion: {state.champion} (state {state.number})")


@models.command("explain-change")
@click.argument("number", type=int)
@click.option("--why", required=True, help="The reason, for the history.")
def explain_change(number: int, why: str) -> None:
    """Add the reason of a change that was made without one.

    NUMBER is the `state` of the change in `peerloan models list`. The history shows who added
    the reason, and when.
    """
    explanation = store().explain_change(number, why)
    note(f"change {number:,}: {explanation.sentence}")


@models.command()
@_VERSION
def verify(version: str) -> None:
    """Check that a version is complete and reproduces.

    Checks every digest, reproduces the golden examples, and builds what serving needs.
    """
    bundle = store().load_servable(version)
    note(
        f"{version}: {plural(len(bundle.manifest.files), 'file')} and "
        f"{plural(len(bundle.manifest.golden), 'golden example')} verified, digest {bundle.digest}"
    )


@models.command()
@_VERSION
def delete(version: str) -> None:
    """Delete a version that nothing needs any more.

    Refused are the champion, the challenger, a version that `rollback` can return to, and one
    that a decision in the ledger needs.
    """
    here = store()
    here.version_folder(version)
    database = ledger_database()
    try:
        decisions = refers_to(database, version)
    except LedgerError as error:
        raise CommandError(
            f"{version} is not deleted: the ledger can't be asked whether a decision needs it: "
            f"{error}"
        ) from None
    if decisions:
        refer = f"in the ledger {'refers' if decisions == 1 else 'refer'} to it; replay needs it"
        raise CommandError(f"{version} can't be deleted: {plural(decisions, 'decision')} {refer}")
    here.delete(version)
    note(f"deleted {version}")


@models.command()
@_VERSION
@AIM
def policy(version: str, aim: tuple[str, float]) -> None:
    """Publish a version again with another threshold and bands."""
    # Templates take a while to import, and no other command here needs them.
    from peerloan.reports.bundle_documents import new_policy_documents

    here = store()
    manifest = here.manifest(version)
    try:
        changed = Policy.by_aim(*aim, manifest.trade_off)
    except ValueError as error:
        raise CommandError(f"{version}: {error}") from None
    new = here.publish_with_policy(version, changed, new_policy_documents(here, version))
    click.echo(new)
    note(
        f"{new}: a loan is late from a probability of {changed.threshold:.4g}; "
        "promote it to serve it"
    )


@models.command()
@click.argument("first")
@click.argument("second")
@BOOK
@JSON
def compare(first: str, second: str, book: str, as_json: bool) -> None:
    """Compare two versions on a book with outcomes.

    Prints the difference of their AUCs (paired bootstrap), their calibration, and the loans whose
    decision changes. The verdict says whether SECOND is better than FIRST, by the same rule as
    monitoring uses for a challenger.
    """
    from peerloan.book import open_book
    from peerloan.cli.comparison_text import comparison_lines
    from peerloan.training.comparison import compare as compare_bundles
    from peerloan.training.table import read_table

    here = store()
    a, b = here.load(first), here.load(second)
    opened = open_book(book)
    with progress() as show:
        tables = [read_table(opened, each.definition, show) for each in (a, b)]
    notes = [
        f"{version} was {how} on this book, so it looks better on it than it is"
        for version, bundle, table in ((first, a, tables[0]), (second, b, tables[1]))
        for how, source in (
            ("trained", bundle.manifest.trained_on),
            ("recalibrated", bundle.manifest.recalibrated_on),
        )
        if source is not None and source.fingerprint == table.trained_on.fingerprint
    ]
    note_lines(tables[1])
    found = compare_bundles(a, b, tables[0].loans, tables[1].loans, tables[0].late)
    for each in notes:
        note(f"note: {each}")
    if as_json:
        print_json(found.to_json() | {"notes": notes})
        return
    for line in comparison_lines(found):
        click.echo(line)


def _cut_short(here: Store) -> Iterator[str]:
    """Describe the versions whose deletion was interrupted."""
    for version in here.pending_deletions():
        try:
            here.folder(version)  # restores the folder of a version that has an alias
        except RegistryError as error:
            yield str(error)


def _row(here: Store, state: AliasState, version: str) -> dict[str, Any]:
    row: dict[str, Any] = {"version": version, "alias": _alias(state, version)}
    try:
        manifest = here.manifest(version)
    except BundleError as error:
        return row | {"auc": "", "loans": "", "trained on": f"unreadable: {error}", "created": ""}
    auc = manifest.metrics.get("auc")
    return row | {
        "auc": None if auc is None else round(auc, 4),
        "loans": manifest.trained_on.loans,
        "trained on": manifest.trained_on.source
        + (f", recalibrated on {again.source}" if (again := manifest.recalibrated_on) else ""),
        "created": manifest.created,
    }


def _recalibrated_rows(manifest: Manifest) -> list[tuple[str, str]]:
    book = manifest.recalibrated_on
    if book is None:
        return []
    trained_on = f"{book.source}: {plural(book.loans, 'loan')}, {book.late:,} late"
    return [("recalibrated on", trained_on), ("its fingerprint", book.fingerprint)]


def _alias(state: AliasState, version: str) -> str:
    if version == state.champion:
        return "champion"
    return "challenger" if version == state.challenger else ""


def _history_row(state: AliasState, explanation: ChangeReason | None) -> tuple[str, ...]:
    version = state.challenger if state.action == "challenge" else state.champion
    why = state.why if explanation is None else explanation.sentence
    of = state.deleted or version or ""
    return (str(state.number), state.when, state.who, state.what, of, why)


def _described(state: AliasState, explanation: ChangeReason | None) -> dict[str, Any]:
    described: dict[str, Any] = msgspec.to_builtins(state) | {"action": state.what}
    if explanation is not None:
        described["explanation"] = msgspec.to_builtins(explanation)
    return described


def _aim(manifest: Manifest) -> str:
    return f"{manifest.policy.aim} {manifest.policy.aim_value:g}"
