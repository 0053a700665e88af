"""Reports of versions that were made of another one: recalibrated, or under another policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape, unescape

from peerloan.loan import Definition
from peerloan.model import Calibration, Policy, TradeOff
from peerloan.registry import TrainedOn
from peerloan.registry.packaging import CREATED_MARK, VERSION_MARK
from peerloan.reports.model_card import policy_in_words
from peerloan.reports.sections import Judgement, at_policy, policy_part, reliability_plot
from peerloan.reports.templating import render
from peerloan.stats.discrimination import auc_interval
from peerloan.stats.measures import Rate
from peerloan.training.wording import interval, percent, show_rate, signed

# Stands below the heading of every report.
_NOTICES = "<!-- notices -->"
_NOTICE = re.compile(
    r'<p class="warning" role="note">The policy was changed after this report was written for '
    r"([^ ]+)\. .*?</p>\n",
    re.DOTALL,
)


@dataclass(frozen=True)
class Recalibrated:
    """A version after its recalibration: all that its report says.

    `before` are the old version's margins on the newer book, `after` the new one's, out of fold;
    `scale` leads from the one to the other.
    """

    version: str
    candidate: str
    definition: Definition
    trained_on: TrainedOn
    book: TrainedOn
    scale: Calibration
    before: Judgement
    after: Judgement
    auc: float
    policy: Policy
    trade_off: tuple[TradeOff, ...]
    doubts: tuple[str, ...] = ()


def recalibration_report(made: Recalibrated) -> str:
    """The report as HTML; it asks for nothing from anywhere."""
    late = made.before.late
    return render(
        "recalibration.html.j2",
        own_version=VERSION_MARK,
        created=CREATED_MARK,
        version=made.version,
        candidate=made.candidate,
        definition=made.definition,
        trained=made.trained_on,
        book=made.book,
        doubts=made.doubts,
        scale=made.scale,
        rate=Rate.of(int(late.sum()), len(late)),
        before=made.before.reliability,
        after=made.after.reliability,
        auc=made.auc,
        auc_interval=auc_interval(late, made.auc),
        reliability_plot=reliability_plot([made.before, made.after]),
        threshold=made.policy.threshold,
        at_threshold=at_policy(made.policy, made.after),
        policy=policy_part(made.policy, made.trade_off, made.after),
        words=policy_in_words(made.policy),
        percent=percent,
        interval=interval,
        show_rate=show_rate,
        signed=signed,
    )


def under_another_policy(report: str, version: str, policy: Policy) -> str:
    """A version's report, with a notice below its heading that the policy has changed since."""
    # The report is still the one that it was before an earlier change.
    if earlier := _NOTICE.search(report):
        version, report = unescape(earlier[1]), report.replace(earlier[0], "", 1)
    notice = (
        f"The policy was changed after this report was written for {version}. "
        f"{policy_in_words(policy)} Where the report speaks of the threshold, of bands, of flagged "
        "loans and of recall, it means the policy of then; the card beside it has the new one."
    )
    return report.replace(
        _NOTICES, f'<p class="warning" role="note">{escape(notice)}</p>\n{_NOTICES}', 1
    )
