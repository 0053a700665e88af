"""Compare our candidates with the client's two scripts, on the same folds.

python bench/model.py [BOOK] [--seeds N] [--search] [--times] [--quick]

There are five stratified, shuffled folds for each seed. Our candidates have the first settings of
their grids, and with --search also the best settings of a search. They are calibrated out of fold,
as in `peerloan train`. The client's scripts are re-created from their description, and their
probabilities are not calibrated. --times adds how long `peerloan train` of the same book takes with
every candidate's grid, and one fit of each of the client's scripts on all loans. Without a BOOK it
uses 60,000 loans of the built-in sample.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import numpy.typing as npt
import xgboost
from imblearn.over_sampling import SMOTE
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler

from peerloan.book import BookError, open_book, open_writer
from peerloan.loan import Loans, default_definition
from peerloan.model import Policy
from peerloan.model.onnx_model import FLOOR
from peerloan.registry import Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.stats.arrays import Numbers
from peerloan.stats.calibration import reliability
from peerloan.training import CANDIDATES, TrainingError, train
from peerloan.training.calibration import cross_fitted
from peerloan.training.candidates import Hyperparameters
from peerloan.training.evaluation import performance_figures
from peerloan.training.folds import equal_groups, stratified
from peerloan.training.search import SearchPlan, first_settings, read_grids, search
from peerloan.training.table import read_table

LOANS, FEW = 60_000, 3_000
FOLDS, FEW_FOLDS = 5, 2
# The share that the client's improved model flags at 0.5.
RISKIEST = 0.31
# Fits a model, and returns a function that computes the log-odds of other loans.
Fit = Callable[[Loans, Numbers], Callable[[Loans], Numbers]]
Splits = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]


@dataclass(frozen=True)
class Model:
    """A row of the table."""

    name: str
    settings: str
    fit: Fit
    calibrated: bool = True


@dataclass(frozen=True)
class Judged:
    """A model's figures on the folds of one seed: means, and the AUC's standard error."""

    auc: float
    error: float
    brier: float
    log_loss: float
    recall: float
    slope: float
    seconds: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("book", nargs="?", metavar="BOOK", help="a book by PeerLoan's definition")
    parser.add_argument("--seeds", type=int, default=1, help="number of shuffles")
    parser.add_argument(
        "--search", action="store_true", help="also use the best settings of a search"
    )
    parser.add_argument("--times", action="store_true", help="also measure the time of training")
    parser.add_argument(
        "--quick", action="store_true", help="few loans and folds, to see whether it works"
    )
    given = parser.parse_args()
    # A pipe has no width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(given.book) if given.book else Path(folder) / "sample.csv"
        if not given.book:
            _write_sample(path, FEW if given.quick else LOANS)
        try:
            table = read_table(open_book(path), default_definition(), lambda _what, _done: None)
        except (BookError, TrainingError) as error:
            raise SystemExit(f"model.py: {error}") from None
        loans, late = table.loans, table.late
        if given.times:
            console.print(_times(path, loans, late, Path(folder), fast=given.quick))
    if given.quick and loans.size > FEW:
        few, _ = train_test_split(
            np.arange(loans.size), train_size=FEW, stratify=late, random_state=0
        )
        loans, late = loans.take(few), late[few]
    with Progress(console=console, transient=True) as bars:
        models = list(_models(loans, late, bars, searched=given.search))
        folds = FEW_FOLDS if given.quick else FOLDS
        task = bars.add_task("testing", total=given.seeds * len(models) * folds)
        found: list[list[Judged]] = [[] for _ in models]
        for seed in range(given.seeds):
            fold = stratified(late, folds, seed, equal_groups(loans, late))
            splits = [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(folds)]
            for model, judged in zip(models, found, strict=True):
                judged.append(_judge(model, loans, late, splits, lambda: bars.advance(task)))
    console.print(
        f"{loans.size:,} loans, {int(late.sum()):,} late; "
        f"{folds} folds, shuffled by seeds 0 to {given.seeds - 1}"
    )
    console.print(_table(models, found))


def _write_sample(path: Path, size: int) -> None:
    with open_writer(path, SCHEMA) as writer:
        for batch in batches(size):
            writer.write(batch)


def _times(path: Path, loans: Loans, late: Numbers, folder: Path, *, fast: bool) -> Table:
    """Table of the seconds of a training, and of one fit of each of the client's scripts."""

    def training(quickly: bool) -> Callable[[], object]:
        names = [name for name in CANDIDATES if not (quickly and name == "basic")]
        store = Store(folder / f"store-{quickly}")
        book = open_book(path)
        return lambda: train(book, default_definition(), store, names, fast=quickly)

    forest = "client's forest, one fit"
    jobs: dict[str, Callable[[], object]] = {
        "peerloan train --quick": training(True),
        forest: lambda: _clients_forest(loans, late),
        "client's improved, one fit": lambda: _clients_improved(loans, late),
    }
    if not fast:
        jobs = {"peerloan train, all grids": training(False)} | jobs
    table = Table("what", "seconds", "of the client's forest")
    seconds = {}
    for name, job in jobs.items():
        start = time.perf_counter()
        job()
        seconds[name] = time.perf_counter() - start
    for name, each in seconds.items():
        table.add_row(name, f"{each:.1f}", f"{each / seconds[forest]:.2f}")
    return table


def _models(loans: Loans, late: Numbers, bars: Progress, *, searched: bool) -> Iterator[Model]:
    grids = read_grids()
    first = {name: each[0] for name, each in first_settings(grids).items()}
    for name, settings in first.items():
        yield Model(name, str(settings), _ours(name, settings))
    if searched:
        task = bars.add_task("searching")
        found = search(
            loans,
            late,
            SearchPlan(grids),
            Policy.by_cost(20.0).threshold_margin,
            lambda what, done: bars.update(task, description=what, completed=100 * done),
        )
        for trial in found.best:
            if trial.settings != first[trial.candidate]:
                yield Model(
                    f"{trial.candidate}, searched",
                    str(trial.settings),
                    _ours(trial.candidate, trial.settings),
                )
    yield Model("client's forest", "the library's defaults", _clients_forest, calibrated=False)
    yield Model(
        "client's improved", "depth=1, 500 rounds, smote", _clients_improved, calibrated=False
    )


def _ours(candidate: str, settings: Hyperparameters) -> Fit:
    return lambda loans, late: (
        CANDIDATES[candidate](loans, late, settings, lambda _done: None).margins
    )


def _clients_forest(loans: Loans, late: Numbers) -> Callable[[Loans], Numbers]:
    """A forest with the library's defaults; numbers imputed by the median, the rest one-hot."""
    encoder = _clients_encoder(loans)
    forest = RandomForestClassifier(random_state=0, n_jobs=-1)
    forest.fit(encoder.fit_transform(_columns(loans)), late)
    return lambda other: _log_odds(
        forest.predict_proba(encoder.transform(_columns(other)))[:, 1].astype(np.float64)
    )


def _clients_improved(loans: Loans, late: Numbers) -> Callable[[Loans], Numbers]:
    """Stumps on robustly scaled columns, after SMOTE."""
    encoder = make_pipeline(_clients_encoder(loans), RobustScaler())
    matrix = encoder.fit_transform(_columns(loans))
    matrix, labels = SMOTE(random_state=0).fit_resample(matrix, late)
    stumps = xgboost.XGBClassifier(
        max_depth=1, n_estimators=500, learning_rate=0.01, subsample=0.4, random_state=0
    )
    stumps.fit(matrix, labels)
    return lambda other: _log_odds(
        stumps.predict_proba(encoder.transform(_columns(other)))[:, 1].astype(np.float64)
    )


def _clients_encoder(loans: Loans) -> ColumnTransformer:
    is_number = np.array([field.is_number for field in loans.definition.fields])
    return ColumnTransformer(
        [
            ("numbers", SimpleImputer(strategy="median"), np.flatnonzero(is_number)),
            ("levels", OneHotEncoder(handle_unknown="ignore"), np.flatnonzero(~is_number)),
        ],
        sparse_threshold=0,
    )


def _columns(loans: Loans) -> npt.NDArray[np.object_]:
    """Return columns (loans, fields) of numbers and texts; a missing text is empty."""
    columns = np.empty((loans.size, len(loans.definition.fields)), dtype=object)
    for place, field in enumerate(loans.definition.fields):
        if field.is_number:
            columns[:, place] = loans.numbers(field.name)
        else:
            texts = loans.texts(field.name)
            columns[:, place] = np.array([*texts.levels, ""], dtype=object)[texts.codes]
    return columns


def _log_odds(probability: Numbers) -> Numbers:
    inside = np.clip(probability, FLOOR, 1 - FLOOR)
    return np.asarray(np.log(inside / (1 - inside)))


def _judge(
    model: Model, loans: Loans, late: Numbers, splits: Splits, tell: Callable[[], None]
) -> Judged:
    margins, fold = np.empty(loans.size), np.empty(loans.size, dtype=np.int64)
    seconds = []
    for number, (fit_on, judge_on) in enumerate(splits):
        part = loans.take(fit_on)
        start = time.perf_counter()
        margins_of = model.fit(part, late[fit_on])
        seconds.append(time.perf_counter() - start)
        margins[judge_on] = margins_of(loans.take(judge_on))
        fold[judge_on] = number
        tell()
    if model.calibrated:
        margins = cross_fitted(margins, late, fold)
    by_fold = [performance_figures(late[rows], margins[rows], 0.0) for _, rows in splits]
    areas = [each["auc"] for each in by_fold]
    return Judged(
        mean(areas),
        float(np.std(areas, ddof=1) / np.sqrt(len(areas))),
        mean(each["brier"] for each in by_fold),
        mean(each["log_loss"] for each in by_fold),
        mean(_recall(late[rows], margins[rows]) for _, rows in splits),
        reliability(margins, late).slope,
        mean(seconds),
    )


def _recall(late: Numbers, margins: Numbers) -> float:
    """Return the share of late loans among the riskiest 31 %; ties count in part."""
    room = round(RISKIEST * len(late))
    least = np.sort(margins)[-room]
    above, equal = margins > least, margins == least
    share = (room - above.sum()) / equal.sum()
    return float((late[above].sum() + share * late[equal].sum()) / late.sum())


def _table(models: list[Model], found: list[list[Judged]]) -> Table:
    """Means over the seeds, also of the error, because another shuffle has the same loans."""
    table = Table("model", "settings")
    for column in ("AUC", "Brier", "log loss", "recall in 31 %", "slope", "fit s"):
        table.add_column(column, justify="right", no_wrap=True)
    for model, seeds in zip(models, found, strict=True):
        table.add_row(
            model.name,
            model.settings,
            f"{mean(each.auc for each in seeds):.4f} ± {mean(each.error for each in seeds):.4f}",
            f"{mean(each.brier for each in seeds):.5f}",
            f"{mean(each.log_loss for each in seeds):.5f}",
            f"{mean(each.recall for each in seeds):.3f}",
            f"{mean(each.slope for each in seeds):.3f}",
            f"{mean(each.seconds for each in seeds):.1f}",
        )
    return table


if __name__ == "__main__":
    main()
