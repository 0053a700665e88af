"""The search: every candidate's grid by cross-validation, and the choice between candidates."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np
import numpy.typing as npt
from scipy.stats import t
from sklearn.model_selection import train_test_split

from peerloan.loan import Loans
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.calibration import Reliability, reliability
from peerloan.training import parallel
from peerloan.training.calibration import cross_fitted
from peerloan.training.candidates import CANDIDATES, Hyperparameters
from peerloan.training.evaluation import BOUNDS, performance_figures
from peerloan.training.folds import count_rarer, equal_groups, stratified

FOLDS, QUICK_FOLDS = 5, 3
SEED = 0
# Rungs of the successive halving (Jamieson and Talwalkar 2016): loans, folds, and the share of a
# candidate's trials that goes on to the next. The last rung has all loans.
RUNGS = ((8_000, 3, 1 / 4), (30_000, 3, 1 / 4))
_LEAST_RARER = 20
# Called with the current step, and its fraction that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Trial:
    """One setting of one candidate, evaluated: its figures by fold, and out-of-fold margins (n,).

    `margins` are as fitted, `calibrated` each calibrated on the other folds; `fold` (n,) is the
    fold in which each loan was evaluated; `before` and `after` are the calibration figures of both.
    """

    candidate: str
    settings: Hyperparameters
    loans: int
    by_fold: tuple[Mapping[str, float], ...]
    margins: Numbers
    calibrated: Numbers
    fold: npt.NDArray[np.int64]
    before: Reliability
    after: Reliability

    @classmethod
    def of(
        cls,
        candidate: str,
        settings: Hyperparameters,
        margins: Numbers,
        late: Numbers,
        fold: npt.NDArray[np.int64],
        threshold_margin: float,
    ) -> Trial:
        """Evaluate out-of-fold margins (n,) as they were fitted."""
        calibrated = cross_fitted(margins, late, fold)
        return cls(
            candidate,
            settings,
            len(late),
            _by_fold(calibrated, late, fold, threshold_margin),
            margins,
            calibrated,
            fold,
            reliability(margins, late),
            reliability(calibrated, late),
        )

    def at_threshold(self, threshold_margin: float, late: Numbers) -> Trial:
        """Return the trial with its figures at another threshold."""
        return replace(self, by_fold=_by_fold(self.calibrated, late, self.fold, threshold_margin))

    def mean(self, figure: str) -> float:
        """Return the mean of a figure over the folds."""
        return float(np.mean([each[figure] for each in self.by_fold]))

    def error(self, figure: str) -> float:
        """Return the standard error of that mean."""
        values = [each[figure] for each in self.by_fold]
        return float(np.std(values, ddof=1) / math.sqrt(len(values)))

    def interval(self, figure: str) -> tuple[float, float]:
        """Return a 95 % interval of that mean (Student's t), clipped to the figure's range."""
        reach = float(t.ppf(0.975, len(self.by_fold) - 1)) * self.error(figure)
        lowest, highest = BOUNDS.get(figure, (0.0, 1.0))
        return max(lowest, self.mean(figure) - reach), min(highest, self.mean(figure) + reach)


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: the best trial of each candidate, and the chosen one.

    `best` are evaluated on the same folds of all loans; `tried` is every trial, of earlier rungs
    too.
    """

    best: tuple[Trial, ...]
    tried: tuple[Trial, ...]
    chosen: Trial
    why: str


def read_grids() -> dict[str, list[Hyperparameters]]:
    """Read every candidate's settings, in the order of the file: the simplest candidate first."""
    text = resources.files("peerloan.training").joinpath("grids.toml").read_text("utf-8")
    grids = {}
    for candidate, grid in tomllib.loads(text).items():
        resamplings = grid.pop("resampling")
        grids[candidate] = [
            Hyperparameters(dict(zip(grid, values, strict=True)), resampling)
            for resampling in resamplings
            for values in itertools.product(*grid.values())
        ]
    return grids


def quick(grids: Mapping[str, Sequence[Hyperparameters]]) -> dict[str, list[Hyperparameters]]:
    """Return the first setting of each grid."""
    return {name: list(grid[:1]) for name, grid in grids.items()}


def search(
    loans: Loans,
    late: Numbers,
    grids: Mapping[str, Sequence[Hyperparameters]],
    threshold_margin: float,
    progress: Progress,
    folds: int = FOLDS,
) -> SearchResult:
    """Evaluate every setting, on few loans first if there are many, and choose.

    Equal rows of an oversampled table are in one fold.
    """
    going = {candidate: list(settings) for candidate, settings in grids.items()}
    tried: list[Trial] = []
    groups = equal_groups(loans, late)
    share = count_rarer(late, groups)[0] / loans.size
    for size, few, going_on in RUNGS:
        # A rung is used only if it eliminates trials, on far fewer loans, with enough of the rarer
        # class in each fold.
        rarer = share * size / few
        single = all(len(each) == 1 for each in going.values())
        if single or size * 2 >= loans.size or rarer < _LEAST_RARER:
            continue
        rows, _ = train_test_split(
            np.arange(loans.size), train_size=size, stratify=late, random_state=SEED
        )
        fold = stratified(late[rows], few, SEED, _among(groups, rows))
        trials = _judge(loans.take(rows), late[rows], going, fold, threshold_margin, progress)
        tried += trials
        going = {
            candidate: [trial.settings for trial in _ranked(trials, candidate)][
                : max(1, round(len(settings) * going_on))
            ]
            for candidate, settings in going.items()
        }
    fold = stratified(late, folds, SEED, groups)
    trials = _judge(loans, late, going, fold, threshold_margin, progress)
    best = tuple(_ranked(trials, candidate)[0] for candidate in grids)
    chosen, why = choose(best)
    return SearchResult(best, (*tried, *trials), chosen, why)


def auc_gain(trial: Trial, other: Trial) -> tuple[float, float]:
    """Return the gain of a trial's AUC over another's on the same folds, and its standard error.

    The error is corrected for fits that share most of their loans (Nadeau and Bengio 2003).
    Otherwise it is 1.5 times too small with five folds, and on a small table chance would choose.
    """
    pairs = zip(trial.by_fold, other.by_fold, strict=True)
    gains = [a["auc"] - b["auc"] for a, b in pairs]
    folds = len(gains)
    # 1 / (folds − 1): evaluated loans divided by fitted loans.
    error = float(np.std(gains, ddof=1)) * math.sqrt(1 / folds + 1 / (folds - 1))
    return float(np.mean(gains)), error


def choose(best: Sequence[Trial]) -> tuple[Trial, str]:
    """Apply the one-standard-error rule (Breiman et al. 1984) to paired differences by fold.

    The choice is the simplest candidate, in the given order, whose mean AUC is within one standard
    error of the best one's.
    """
    top = max(best, key=lambda trial: trial.mean("auc"))
    for trial in best:
        behind, error = auc_gain(top, trial)
        if behind <= error:
            break
    if trial is top:
        return top, (
            f"{top.candidate} has the best mean AUC ({top.mean('auc'):.4f}), and no simpler "
            "candidate is within one standard error of it"
        )
    return trial, (
        f"{top.candidate} has the best mean AUC ({top.mean('auc'):.4f}); {trial.candidate} is "
        f"simpler and only {behind:.4f} behind, within one standard error ({error:.4f})"
    )


def _ranked(trials: Sequence[Trial], candidate: str) -> list[Trial]:
    """Sort a candidate's trials by mean AUC, best first; ties in the order of the grid."""
    own = [trial for trial in trials if trial.candidate == candidate]
    return sorted(own, key=lambda trial: -trial.mean("auc"))


def _judge(
    loans: Loans,
    late: Numbers,
    grids: Mapping[str, Sequence[Hyperparameters]],
    fold: Codes,
    threshold_margin: float,
    progress: Progress,
) -> list[Trial]:
    folds = int(fold.max()) + 1
    splits = [
        (np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(folds)
    ]
    due = [(candidate, settings) for candidate, every in grids.items() for settings in every]

    def fit(job: tuple[tuple[str, Hyperparameters], int]) -> Numbers:
        (candidate, settings), number = job
        fit_on, judge_on = splits[number]
        fitted = CANDIDATES[candidate](
            loans.take(fit_on), late[fit_on], settings, lambda _done: None
        )
        return fitted.margins(loans.take(judge_on))

    def judge(number: int) -> Trial:
        candidate, settings = due[number]
        return Trial.of(candidate, settings, margins[number], late, fold, threshold_margin)

    jobs = list(itertools.product(due, range(folds)))
    margins = np.empty((len(due), loans.size))
    what = f"trying settings on {loans.size:,} loans"
    for done, found in enumerate(parallel.parallel_map(fit, jobs)):
        margins[done // folds, splits[done % folds][1]] = found
        progress(what, (done + 1) / len(jobs))
    return list(parallel.parallel_map(judge, range(len(due))))


def _among(groups: Codes | None, rows: Codes) -> Codes | None:
    """Renumber the groups of some rows from 0."""
    return None if groups is None else np.unique(groups[rows], return_inverse=True)[1]


def _by_fold(
    margins: Numbers, late: Numbers, fold: npt.NDArray[np.int64], threshold_margin: float
) -> tuple[Mapping[str, float], ...]:
    folds = [fold == number for number in range(int(fold.max()) + 1)]
    return tuple(performance_figures(late[own], margins[own], threshold_margin) for own in folds)
