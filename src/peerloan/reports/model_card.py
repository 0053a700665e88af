"""The model card: a one-page description of a version, as Markdown.

It is made from the version's manifest and definition, so it can be made again when the policy
changes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from peerloan.formatting import percent
from peerloan.loan import Definition
from peerloan.model import BANDS, OperatingPoint, Policy
from peerloan.model.arithmetic import probability
from peerloan.model.policy import late_rate_of, operating_point
from peerloan.registry import Manifest, TrainedOn
from peerloan.reports.aims import AIMS_NOTE, compare_aims, cost_ratio

# The card and the report both contain it.
INTENDED_USE = (
    "To rank loans by risk, to monitor the riskiest ones, to contact their holders early, and to "
    "give reasons. It was not built to decide on applications, to price, or to compute capital or "
    "provisions. No loan should be refused, repriced or ended without a review by a person."
)
NAMES = {
    "auc": "AUC",
    "gini": "Gini",
    "ks": "KS",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "recall": "recall at the threshold",
    "flagged": "share flagged",
    "slope": "calibration slope",
    "intercept": "calibration intercept",
}
_LATER = "later_"
_WHAT = {
    "binned": "a logistic regression on optimal bins, as a scorecard",
    "additive": "boosted trees that each use one field, as a scorecard",
    "logistic": "a logistic regression on scaled numbers and one-hot categories",
    "boosted": "boosted trees with interactions",
    "basic": "a random forest",
}


def model_card(manifest: Manifest, definition: Definition) -> str:
    """Render the card as Markdown.

    The metrics of a recalibrated version are those on the loans that it was recalibrated on.
    """
    trained_on, recalibrated_on = manifest.trained_on, manifest.recalibrated_on
    on_sample = [
        how
        for how, book in (("Trained", trained_on), ("Recalibrated", recalibrated_on))
        if book is not None and book.sample
    ]
    warning = (
        f"> **{on_sample[0]} on the built-in sample.** Its loans are synthetic: no decision about "
        "a person may rest on this version.\n\n"
        if on_sample
        else ""
    )
    calibrated_on = "the training table" if recalibrated_on is None else "the newer book"
    label, days = definition.label, window(definition.roles.horizon)
    fields = [(field.name, field.label, field.kind, field.expected) for field in definition.fields]
    return f"""# {_plain(definition.model)}: {_plain(manifest.candidate)}

Version `{manifest.version}`, made {manifest.created}.

{warning}Predicts for each loan how likely its holder is to be late {days}: that
{_code(label.column)} will be {_code(label.late)}. {_question(definition)}The version is
{_WHAT.get(manifest.candidate, "another kind of model")}.

## Intended use
{INTENDED_USE}

## Trained on
{_source(trained_on)}
{_recalibrated(recalibrated_on)}
## Performance
{_validation_text(recalibrated_on)}

{_table(["figure", "value", "95 % interval"], _figures(manifest.metrics, manifest.intervals))}

## Policy
{policy_in_words(manifest.policy)}
{_aims(manifest)}
{_table(["band", "probability"], band_ranges(manifest.policy))}

## Features
{_table(["field", "label", "kind", "expected"], fields)}

## Limits
- The figures are valid for loans like those of the training table. With another mix of loans,
  another economy, or another meaning of late, the late rate is another one: recalibrate then
  (`peerloan train --recalibrate`).
- Only granted loans have an outcome: nothing is known about applicants who were refused.
- Probabilities are calibrated for the late rate of {calibrated_on}. If the late rate
  changes, the ranking may still be right while the probabilities are not; recalibrate then.
- Reasons name what raises this loan's probability above the average. They are not causes.
- Fairness is checked only for the columns that were named at training: see the report.

## Responsibility
- Owner: *to be filled in by the owner*
- Independently validated by, on: *to be filled in by the owner*
- Approved for this use by, on: *to be filled in by the owner*
- To be reviewed when its loans or their late rate change, and no later than:
  *to be filled in by the owner*

The report in the same folder, `report.html`, contains the evidence.
"""


def _question(definition: Definition) -> str:
    if definition.question is None:
        return ""
    return f"As a question: {_plain(definition.question)}\n"


def _aims(manifest: Manifest) -> str:
    """Return the section of the aims; empty for a version without a trade-off table."""
    policy, trade_off = manifest.policy, manifest.trade_off
    if not trade_off:
        return ""
    rows = [
        (
            f"{row.aim} (chosen)" if row.is_chosen else row.aim,
            *map(percent, (row.threshold, *_shares(row.result))),
            f"{row.cost:,.0f}",
        )
        for row in compare_aims(policy, _at_policy(manifest), trade_off)
    ]
    return f"""
### Aims beside each other
{_table(["aim", "threshold", "flagged", "recall", "precision", "cost"], rows)}

Cost is that of 1,000 loans: a false alarm costs 1, and a missed late loan {cost_ratio(policy):g}.
{AIMS_NOTE}

### Bands"""


def _shares(result: OperatingPoint) -> tuple[float, float, float]:
    return result.flagged, result.recall, result.precision


def _at_policy(manifest: Manifest) -> OperatingPoint:
    """Return the results at the threshold, as the performance table has them."""
    policy, trade_off, metrics = manifest.policy, manifest.trade_off, manifest.metrics
    if not {"flagged", "recall"} <= metrics.keys():
        return operating_point(policy, trade_off)
    flagged, recall = metrics["flagged"], metrics["recall"]
    precision = late_rate_of(trade_off) * recall / flagged if flagged else 0.0
    return OperatingPoint(policy.threshold_margin, flagged, recall, precision)


def _source(book: TrainedOn) -> str:
    return (
        f"{_plain(book.source)}: {book.loans:,} loans, of which {book.late:,} are late\n"
        f"({book.late / book.loans:.2%}). Fingerprint `{book.fingerprint}`."
    )


def _recalibrated(book: TrainedOn | None) -> str:
    if book is None:
        return ""
    return f"""
## Recalibrated on
{_source(book)}
Log-odds were shifted and scaled to fit these outcomes; the ranking and the reasons are as trained.
"""


def _validation_text(recalibrated_on: TrainedOn | None) -> str:
    if recalibrated_on is None:
        return (
            "Figures by cross-validation, on loans that were not fitted on; the version itself was "
            "fitted on all loans."
        )
    return (
        "Figures on the loans that it was recalibrated on, each with a scale fitted on the other "
        "folds; the version's own scale was fitted on all of them."
    )


def window(horizon: tuple[int, int]) -> str:
    """Describe the outcome window: 'between day 1 and day 184 after the decision'."""
    first, last = horizon
    return f"between day {first} and day {last} after the decision"


def policy_in_words(policy: Policy) -> str:
    """Describe the threshold and its aim in a sentence."""
    value = policy.aim_value
    rule = f"A loan is flagged (Yes) from a probability of {policy.threshold:.4f} on"
    share = f"{100 * value:g} %"
    why = {
        "balanced": "this is the late rate of its table, and decides as 0.5 would if late and "
        "on-time loans had equal weight",
        "cost": f"where a missed late loan costs as much as {value:g} false alarms, yes and no "
        "have equal expected costs there",
        "capacity": f"this flags the riskiest {share} of the loans, as many as can be reviewed",
        "recall": f"this finds at least {share} of the late loans with as few flagged as possible",
        "f2": "this has the largest F2, which weighs recall twice as much as precision",
    }.get(policy.aim)
    return f"{rule}: {why}." if why else f"{rule} (aim: {_plain(policy.aim)} {value:g})."


def band_ranges(policy: Policy) -> list[tuple[str, str]]:
    """List the bands with their ranges of probabilities, the lowest first."""
    ends = [f"{100 * probability(margin):.2f} %" for margin in policy.band_margins]
    middle = [f"{low} to below {high}" for low, high in itertools.pairwise(ends)]
    return list(zip(BANDS, [f"below {ends[0]}", *middle, f"{ends[-1]} and above"], strict=True))


def figure_name(key: str) -> str:
    """Return the name of a figure as people read it."""
    name = NAMES.get(key.removeprefix(_LATER), key)
    return f"{name}, later book" if key.startswith(_LATER) else name


def _figures(
    metrics: dict[str, float], intervals: dict[str, tuple[float, float]]
) -> Iterable[tuple[str, ...]]:
    for key, value in metrics.items():
        ends = intervals.get(key)
        interval = "" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"
        yield figure_name(key), f"{value:.4g}", interval


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


# Characters that Markdown, or HTML in it, interprets.
_SPECIAL = re.compile(r"([\\`*\[\]<>|&])")


def _plain(text: str) -> str:
    """Escape a text from the definition or the book for Markdown."""
    return _SPECIAL.sub(r"\\\1", text)


def _code(value: object) -> str:
    """Format a value as code, safe for values that contain a backtick."""
    text = str(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"
