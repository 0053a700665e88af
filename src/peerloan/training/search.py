"""The search: cross-validate every candidate's settings, then choose a candidate."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from peerloan.training.candidates import CANDIDATES, Candidate, Hyperparameters
from peerloan.training.evaluation import BOUNDS, performance_figures
from peerloan.training.folds import count_rarer, equal_groups, stratified

FOLDS, QUICK_FOLDS = 5, 3
SEED = 0
# Least loans of the rarer class in each fold of a rung.
_LEAST_RARER = 20
# Called with the name of the current step and the fraction of it that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Rung:
    """A rung of successive halving (Jamieson and Talwalkar 2016): a search on a part of the loans.

    `promoted` is the share of a candidate's settings that are tried on the next rung.
    """

    loans: int
    folds: int
    promoted: float


# They come before the last evaluation, which is on all loans.
RUNGS = (Rung(8_000, 3, 1 / 4), Rung(30_000, 3, 1 / 4))


@dataclass(frozen=True)
class SearchPlan:
    """What a search tries: settings by candidate, folds of all loans, and the rungs before."""

    grids: Mapping[str, Sequence[Hyperparameters]]
    folds: int = FOLDS
    rungs: Sequence[Rung] = RUNGS
    candidates: Mapping[str, Candidate] = field(default_factory=lambda: CANDIDATES)


@dataclass(frozen=True)
class Trial:
    """The evaluation of one setting of one candidate: figures by fold, and out-of-fold margins.

    `margins` (n,) are not calibrated; each of `calibrated` (n,) is calibrated on the other folds.
    `fold` (n,) is the fold in which each loan was evaluated. `before` and `after` are the
    calibration figures of `margins` and of `calibrated`.
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
        """Evaluate out-of-fold margins (n,) that are not calibrated."""
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
        return float(np.mean([figures[figure] for figures in self.by_fold]))

    def error(self, figure: str) -> float:
        """Return the standard error of that mean."""
        values = [figures[figure] for figures in self.by_fold]
        return float(np.std(values, ddof=1) / math.sqrt(len(values)))

    def interval(self, figure: str) -> tuple[float, float]:
        """Return a 95 % interval of that mean (Student's t), clipped to the figure's range."""
        reach = float(t.ppf(0.975, len(self.by_fold) - 1)) * self.error(figure)
        lowest, highest = BOUNDS.get(figure, (0.0, 1.0))
        return max(lowest, self.mean(figure) - reach), min(highest, self.mean(figure) + reach)


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: the best trial of each candidate, and the chosen one.

    `best` are evaluated on the same folds of all loans. `tried` are the trials of all rungs.
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


def first_settings(
    grids: Mapping[str, Sequence[Hyperparameters]],
) -> dict[str, list[Hyperparameters]]:
    """Return the first setting of each grid, for a quick search."""
    return {name: list(grid[:1]) for name, grid in grids.items()}


def search(
    loans: Loans,
    late: Numbers,
    plan: SearchPlan,
    threshold_margin: float,
    progress: Progress,
) -> SearchResult:
    """Evaluate every setting of the plan and choose a candidate.

    If there are many loans, the rungs try all settings on few loans first, and the best ones on
    more. `late` (n,) is 1 for each late loan. Equal rows of an oversampled table are in one fold.
    """
    remaining = {candidate: list(grid) for candidate, grid in plan.grids.items()}
    tried: list[Trial] = []
    groups = equal_groups(loans, late)
    rarer_share = count_rarer(late, groups)[0] / loans.size
    for rung in plan.rungs:
        if not _is_useful(rung, remaining, loans.size, rarer_share):
            continue
        rows, _ = train_test_split(
            np.arange(loans.size), train_size=rung.loans, stratify=late, random_state=SEED
        )
        fold = stratified(late[rows], rung.folds, SEED, _among(groups, rows))
        trials = _evaluate(
            loans.take(rows),
            late[rows],
            replace(plan, grids=remaining),
            fold,
            threshold_margin,
            progress,
        )
        tried += trials
        remaining = _promoted(trials, remaining, rung.promoted)
    fold = stratified(late, plan.folds, SEED, groups)
    trials = _evaluate(
        loans, late, replace(plan, grids=remaining), fold, threshold_margin, progress
    )
    best = tuple(_ranked(trials, candidate)[0] for candidate in plan.grids)
    chosen, why = choose(best)
    return SearchResult(best, (*tried, *trials), chosen, why)


def _is_useful(
    rung: Rung,
    grids: Mapping[str, Sequence[Hyperparameters]],
    loans: int,
    rarer_share: float,
) -> bool:
    """Whether a rung eliminates settings, on far fewer loans, with enough of the rarer class."""
    if all(len(grid) == 1 for grid in grids.values()) or rung.loans * 2 >= loans:
        return False
    return rarer_share * rung.loans / rung.folds >= _LEAST_RARER


def _promoted(
    trials: Sequence[Trial], grids: Mapping[str, Sequence[Hyperparameters]], share: float
) -> dict[str, list[Hyperparameters]]:
    """Return the best share of each candidate's settings, at least one."""
    return {
        candidate: [
            trial.settings
            for trial in _ranked(trials, candidate)[: max(1, round(len(grid) * share))]
        ]
        for candidate, grid in grids.items()
    }


def auc_gain(trial: Trial, other: Trial) -> tuple[float, float]:
    """Return the gain of a trial's AUC over another's on the same folds, and its standard error.

    The error is corrected for fits that share most of their loans (Nadeau and Bengio 2003).
    Without the correction it is 1.5 times too small with five folds, and on a small table chance
    would decide.
    """
    pairs = zip(trial.by_fold, other.by_fold, strict=True)
    gains = [a["auc"] - b["auc"] for a, b in pairs]
    folds = len(gains)
    # 1 / (folds − 1) is the number of evaluated loans divided by that of fitted ones.
    error = float(np.std(gains, ddof=1)) * math.sqrt(1 / folds + 1 / (folds - 1))
    return float(np.mean(gains)), error


def choose(best: Sequence[Trial]) -> tuple[Trial, str]:
    """Apply the one-standard-error rule (Breiman et al. 1984) to paired differences by fold.

    The choice is the first candidate whose mean AUC is within one standard error of the best
    one's. `best` starts with the simplest candidate.
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
    of_candidate = [trial for trial in trials if trial.candidate == candidate]
    return sorted(of_candidate, key=lambda trial: -trial.mean("auc"))


def _evaluate(
    loans: Loans,
    late: Numbers,
    plan: SearchPlan,
    fold: Codes,
    threshold_margin: float,
    progress: Progress,
) -> list[Trial]:
    """Cross-validate every setting of the plan on the same folds (n,)."""
    folds = int(fold.max()) + 1
    splits = [
        (np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(folds)
    ]
    settings_to_try = [
        (candidate, settings) for candidate, grid in plan.grids.items() for settings in grid
    ]

    def fit(job: tuple[tuple[str, Hyperparameters], int]) -> Numbers:
        (candidate, settings), number = job
        fit_on, evaluate_on = splits[number]
        fitted = plan.candidates[candidate](
            loans.take(fit_on), late[fit_on], settings, lambda _done: None
        )
        return fitted.margins(loans.take(evaluate_on))

    def evaluate(place: int) -> Trial:
        candidate, settings = settings_to_try[place]
        return Trial.of(candidate, settings, margins[place], late, fold, threshold_margin)

    jobs = list(itertools.product(settings_to_try, range(folds)))
    margins = np.empty((len(settings_to_try), loans.size))
    step = f"trying settings on {loans.size:,} loans"
    for done, fold_margins in enumerate(parallel.parallel_map(fit, jobs)):
        margins[done // folds, splits[done % folds][1]] = fold_margins
        progress(step, (done + 1) / len(jobs))
    return list(parallel.parallel_map(evaluate, range(len(settings_to_try))))


def _among(groups: Codes | None, rows: Codes) -> Codes | None:
    """Renumber the groups of some rows from 0."""
    return None if groups is None else np.unique(groups[rows], return_inverse=True)[1]


def _by_fold(
    margins: Numbers, late: Numbers, fold: npt.NDArray[np.int64], threshold_margin: float
) -> tuple[Mapping[str, float], ...]:
    folds = [fold == number for number in range(int(fold.max()) + 1)]
    return tuple(
        performance_figures(late[in_fold], margins[in_fold], threshold_margin) for in_fold in folds
    )
