"""The training run: read a book, fit and judge candidates, publish a bundle of each."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from sklearn.model_selection import train_test_split

from peerloan.book import Book, Fingerprint, check_columns, join_loans, read_loans
from peerloan.loan import Definition, Field, Loans, Numbers
from peerloan.model import Draft, Policy, Profile, Store, TrainedOn, draft
from peerloan.sample import ID_PREFIX
from peerloan.training.candidates import CANDIDATES, SEED
from peerloan.training.card import model_card
from peerloan.training.evaluation import metrics

HELD_OUT = 0.2
# Fewer of either kind, and held-out figures mean nothing.
LEAST_LOANS = 20
_MOST_LEVELS = 100
# What is being done, and the fraction of it that is done.
Progress = Callable[[str, float], None]


class TrainingError(ValueError):
    """A book that can't be trained on, and why."""


@dataclass(frozen=True)
class Outcome:
    """A published candidate and its held-out figures."""

    candidate: str
    version: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Table:
    """A training table in memory: checked loans, 1 for each late one, and where they came from."""

    loans: Loans
    late: Numbers
    trained_on: TrainedOn


def read_table(book: Book, definition: Definition, progress: Progress) -> Table:
    """Read a whole book with its labels; a bad row raises TrainingError."""
    check_columns(definition, book, label=True)
    batches, fingerprint, sample = [], Fingerprint(definition), False
    for part in book.parts(lambda done: progress(f"reading {book.name}", done)):
        batch = read_loans(definition, part, label=True)
        if batch.problems:
            first = batch.problems[0]
            raise TrainingError(
                f"{book.name}: row {first.loan}, {first.field}: expected {first.expected}, "
                f"given {first.given}; `peerloan check` names every bad row"
            )
        sample |= any((loan_id or "").startswith(ID_PREFIX) for loan_id in batch.ids or ())
        fingerprint.update(batch.loans, batch.labels)
        batches.append(batch)
    late = np.concatenate([np.asarray(batch.labels) for batch in batches]).astype(np.float64)
    for name, count in (("late", late.sum()), ("on time", len(late) - late.sum())):
        if count < LEAST_LOANS:
            raise TrainingError(
                f"{book.name}: expected at least {LEAST_LOANS} loans that are {name}, "
                f"given {int(count)} of {len(late)}"
            )
    loans = join_loans([batch.loans for batch in batches])
    seen = definition_as_seen(loans)
    return Table(
        Loans(seen, loans.columns, loans.size),
        late,
        TrainedOn(
            "built-in sample" if sample else Path(book.name).name,
            fingerprint.hexdigest(),
            len(late),
            int(late.sum()),
            sample,
        ),
    )


def train(
    book: Book,
    definition: Definition,
    store: Store,
    candidates: Sequence[str] = tuple(CANDIDATES),
    progress: Progress = lambda _what, _done: None,
) -> list[Outcome]:
    """Fit, judge and publish each candidate; gives them best first.

    Nothing is published unless every candidate could be fitted.
    """
    store.check_model(definition.model)  # before minutes of fitting
    table = read_table(book, definition, progress)
    drafts = [(name, _fit(name, table, progress)) for name in candidates]
    outcomes = []
    for name, each in drafts:
        progress(f"publishing {name}", 0.0)
        outcomes.append(Outcome(name, store.publish(each), each.manifest.metrics))
        progress(f"publishing {name}", 1.0)
    return sorted(outcomes, key=lambda outcome: -outcome.metrics["auc"])


def _fit(candidate: str, table: Table, progress: Progress) -> Draft:
    fit = CANDIDATES[candidate]
    policy = Policy.by_cost()
    train_rows, test_rows = train_test_split(
        np.arange(table.loans.size), test_size=HELD_OUT, stratify=table.late, random_state=SEED
    )
    judged = fit(
        table.loans.take(train_rows),
        table.late[train_rows],
        lambda done: progress(f"{candidate}: fitting on four fifths", done),
    )
    held_out = judged.predict(table.loans.take(test_rows))
    figures = metrics(table.late[test_rows], held_out, policy)
    final = fit(
        table.loans,
        table.late,
        lambda done: progress(f"{candidate}: fitting on all loans", done),
    )
    progress(f"{candidate}: compiling", 0.0)
    made = draft(
        candidate=candidate,
        definition=table.loans.definition,
        estimator=final.compile(table.loans),
        policy=policy,
        # Of held-out loans: a model is surer of those it was fitted on than of any later one.
        profile=Profile.of(table.loans, table.late, held_out),
        trained_on=table.trained_on,
        metrics=figures,
        libraries=_libraries(),
        documents={
            "card.md": model_card(
                candidate, table.loans.definition, table.trained_on, figures, policy
            )
        },
    )
    progress(f"{candidate}: compiling", 1.0)
    return made


def definition_as_seen(loans: Loans) -> Definition:
    """The definition with what this table holds: ranges of numbers, levels of categories."""
    fields = tuple(_as_seen(field, loans) for field in loans.definition.fields)
    return msgspec.structs.replace(loans.definition, fields=fields)


def _as_seen(field: Field, loans: Loans) -> Field:
    if field.is_number:
        given = loans.numbers(field.name)
        given = given[~np.isnan(given)]
        seen = (float(given.min()), float(given.max())) if len(given) else None
        return msgspec.structs.replace(field, seen=seen)
    if field.kind == "ordered":
        return field
    column = loans.texts(field.name)
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    by_count = np.argsort(-counts, kind="stable").tolist()
    levels = tuple(column.levels[code] for code in by_count if counts[code])
    listed = set(field.levels)
    # The form offers the common ones too, in a list that a person can still read.
    offered = [level for level in levels[:_MOST_LEVELS] if level not in listed]
    return msgspec.structs.replace(field, levels=(*field.levels, *offered), seen=levels)


def _libraries() -> dict[str, str]:
    names = ("numpy", "onnxruntime", "scikit-learn", "skl2onnx", "xgboost-cpu")
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in names
    }
