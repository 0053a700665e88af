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
    open_store,
    print_json,
    print_table,
    progress,
)
from peerloan.cli.ledger_options import ledger_database
from peerloan.database import LedgerError
from peerloan.formatting import plural
from peerloan.ledger.audit.replay import count_references
from peerloan.model import Policy
from peerloan.model.policy import spell_aim
from peerloan.registry import AliasState, BundleError, ChangeReason, Manifest, RegistryError, Store

_WHY = click.option("--why", default="", help="Reason of the change, stored in the history.")
_VERSION = click.argument("version")


@click.group()
def models() -> None:
    """Manage versions and choose which one serves."""


@models.command("list")
@JSON
def list_models(as_json: bool) -> None:
    """List all versions, the oldest first, and the history."""
    store = open_store()
    state = store.state()
    interrupted = [*_interrupted_deletions(store)]
    rows = [_row(store, state, version) for version in store.versions()]
    history, (explanations, faults) = store.history(), store.explanations()
    for fault in (*faults, *interrupted):
        note(f"note: {fault}")
    if as_json:
        changes = [_change_json(each, explanations.get(each.number)) for each in history]
        print_json({"versions": rows, "history": changes})
        return
    if not rows:
        note(f"no versions in {store.root}")
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
    store = open_store()
    manifest = store.manifest(version)
    aliases = _alias(store.state(), version)
    if as_json:
        print_json(msgspec.to_builtins(manifest) | {"alias": aliases})
        return
    trained, policy = manifest.trained_on, manifest.policy
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
        ("threshold", f"{policy.threshold} ({spell_aim(policy.aim, policy.aim_value)})"),
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
    state = open_store().promote(version, why, breaking)
    note(f"champion: {state.champion} (state {state.number})")


@models.command()
@_VERSION
@_WHY
def challenge(version: str, why: str) -> None:
    """Make a version the challenger.

    Services then score each loan with it too, and count how often its decision differs.
    """
    state = open_store().challenge(version, why)
    note(f"challenger: {state.challenger} (state {state.number})")


@models.command()
@_WHY
def dismiss(why: str) -> None:
    """Remove the challenger; its version stays in the store."""
    store = open_store()
    challenger = store.state().challenger
    state = store.dismiss(why)
    note(f"dismissed {challenger}: no challenger (state {state.number})")


@models.command()
@_WHY
def rollback(why: str) -> None:
    """Return to the previous champion.

    Run it again to return to the one before that.
    """
    state = open_store().rollback(why)
    note(f"champion: {state.champion} (state {state.number})")


@models.command("explain-change")
@click.argument("number", type=int)
@click.option("--why", required=True, help="Reason of the change, stored in the history.")
def explain_change(number: int, why: str) -> None:
    """Add the reason of a change that was made without one.

    NUMBER is the `state` of the change in `peerloan models list`. The history shows who added
    the reason, and when.
    """
    explanation = open_store().explain_change(number, why)
    note(f"change {number:,}: {explanation.sentence}")


@models.command()
@_VERSION
def verify(version: str) -> None:
    """Check that a version is complete, unchanged and can be served.

    Checks the digest of every file and compares the decisions on the golden examples.
    """
    bundle = open_store().load_servable(version)
    note(
        f"{version}: {plural(len(bundle.manifest.files), 'file')} and "
        f"{plural(len(bundle.manifest.golden), 'golden example')} verified, digest {bundle.digest}"
    )


@models.command()
@_VERSION
def delete(version: str) -> None:
    """Delete a version that is no longer needed.

    The champion, the challenger, a version that `rollback` can return to, and a version with
    decisions in the ledger can't be deleted.
    """
    store = open_store()
    store.version_folder(version)
    database = ledger_database()
    try:
        decisions = count_references(database, version)
    except LedgerError as error:
        raise CommandError(
            f"{version} is not deleted: the ledger can't be searched for its decisions: {error}"
        ) from None
    if decisions:
        refer = f"in the ledger {'refers' if decisions == 1 else 'refer'} to it; replay needs it"
        raise CommandError(f"{version} can't be deleted: {plural(decisions, 'decision')} {refer}")
    store.delete(version)
    note(f"deleted {version}")


@models.command()
@_VERSION
@AIM
def policy(version: str, aim: tuple[str, float]) -> None:
    """Publish a version again with another threshold and bands."""
    # Templates take a while to import, and no other command needs them.
    from peerloan.reports.bundle_documents import new_policy_documents

    store = open_store()
    manifest = store.manifest(version)
    try:
        changed = Policy.by_aim(*aim, manifest.trade_off)
    except ValueError as error:
        raise CommandError(f"{version}: {error}") from None
    new = store.publish_with_policy(version, changed, new_policy_documents(store, version))
    click.echo(new)
    note(
        f"{new}: loans are flagged from a probability of {changed.threshold:.4g}; "
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

    store = open_store()
    a, b = store.load(first), store.load(second)
    opened = open_book(book)
    with progress() as show:
        tables = [read_table(opened, each.definition, show) for each in (a, b)]
    notes = [
        f"{version} was {how} on this book, so its figures here are too good"
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


def _interrupted_deletions(store: Store) -> Iterator[str]:
    """Describe the versions whose deletion was interrupted."""
    for version in store.pending_deletions():
        try:
            store.folder(version)  # restores the folder of a version that has an alias
        except RegistryError as error:
            yield str(error)


def _row(store: Store, state: AliasState, version: str) -> dict[str, Any]:
    row: dict[str, Any] = {"version": version, "alias": _alias(state, version)}
    try:
        manifest = store.manifest(version)
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


def _change_json(state: AliasState, explanation: ChangeReason | None) -> dict[str, Any]:
    described: dict[str, Any] = msgspec.to_builtins(state) | {"action": state.what}
    if explanation is not None:
        described["explanation"] = msgspec.to_builtins(explanation)
    return described
