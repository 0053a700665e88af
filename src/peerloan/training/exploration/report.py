"""The exploration as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from peerloan.formatting import percent, show_interval, show_number, signed
from peerloan.reports import charts
from peerloan.reports.charts import Tone
from peerloan.reports.templating import render
from peerloan.training.exploration.findings import (
    Finding,
    describe_information,
    is_high,
    is_too_few,
)
from peerloan.training.exploration.measure import Bin, BookStudy, Feature, Matrix, Progress

# Charts are drawn of this many features at most.
MOST_DRAWN = 200


def render_page(
    study: BookStudy,
    findings: Sequence[Finding],
    progress: Progress = lambda _step, _done: None,
    most_drawn: int = MOST_DRAWN,
) -> str:
    """Render the page as HTML; it loads nothing from elsewhere.

    Charts are drawn of the `most_drawn` most informative features.
    """
    drawn = {}
    ranked = sorted(study.features, key=lambda feature: -(feature.information or 0))
    best = {feature.name for feature in ranked[:most_drawn]}
    detailed = [feature for feature in study.features if feature.name in best]
    for done, feature in enumerate(detailed):
        progress("drawing", done / len(detailed))
        if len(feature.bins) > 1:
            drawn[feature.name] = _plots(feature, study)
    anchors = {feature.name: f"f{place}" for place, feature in enumerate(detailed, 1)}
    varying = sum(len(feature.bins) > 1 for feature in study.features)
    page = render(
        "exploration.html.j2",
        study=study,
        topics=_topics(findings, anchors),
        anchors=anchors,
        ranked=ranked,
        detailed=detailed,
        most=max(feature.information or 0 for feature in study.features),
        drawn=drawn,
        spearman=_heat_map("Spearman's rank correlations", study.spearman),
        cramer=_heat_map("Cramér's V", study.cramer),
        paired=len(study.cramer.columns),
        varying=varying,
        is_high=lambda bin_: is_high(bin_, study.overall.rate),
        is_too_few=lambda bin_: is_too_few(bin_, study.overall.rate),
        interval=show_interval,
        percent=percent,
        show_number=show_number,
        describe_information=describe_information,
        signed=signed,
    )
    progress("drawing", 1.0)
    return page


def _topics(findings: Sequence[Finding], anchors: Mapping[str, str]) -> dict[str, list[Markup]]:
    """Group the findings' sentences by topic, in their order."""
    topics: dict[str, list[Markup]] = {}
    for finding in findings:
        topics.setdefault(finding.topic, []).append(_sentence(finding, anchors))
    return topics


def _sentence(finding: Finding, anchors: Mapping[str, str]) -> Markup:
    """Render a finding as HTML, with links to features, and without a line break before "%"."""
    text = finding.text.replace(" %", "\N{NO-BREAK SPACE}%")
    if finding.feature is not None:
        text = f"`{finding.feature}`: {text}"
    # A backtick in a column's name is harmless: every piece is escaped.
    pieces = [escape(piece) for piece in text.split("`")]
    for place in range(1, len(pieces), 2):
        anchor = anchors.get(str(pieces[place].unescape()))
        code = Markup("<code>{}</code>").format(pieces[place])
        pieces[place] = Markup('<a href="#{}">{}</a>').format(anchor, code) if anchor else code
    return Markup("").join(pieces)


def _plots(feature: Feature, study: BookStudy) -> dict[str, str | Markup]:
    """Plot the distribution, with its caption, and the late rates."""
    caption, distribution = _distribution(feature)
    average = study.overall.rate
    # The interval of a few loans may be so wide that it would compress the others.
    reliable = [bin_.rate.high for bin_ in feature.bins if not is_too_few(bin_, average)]
    return {
        "caption": caption,
        "distribution": distribution,
        "rates": charts.bars(
            f"Late rates by {feature.name}",
            [bin_.label for bin_ in feature.bins],
            [bin_.rate.rate for bin_ in feature.bins],
            intervals=[(bin_.rate.low, bin_.rate.high) for bin_ in feature.bins],
            line=average,
            line_label=f"all {percent(average)}",
            tones=[_tone(bin_, average) for bin_ in feature.bins],
            most=min(1, 1.05 * max([*reliable, 1.5 * average])) if reliable else None,
            scale="percent",
        ),
    }


def _distribution(feature: Feature) -> tuple[str, Markup]:
    title = f"Distribution of {feature.name}"
    if feature.numeric is None:
        return "Share of the loans", charts.bars(
            title,
            [bin_.label for bin_ in feature.bins],
            [bin_.share for bin_ in feature.bins],
            scale="percent",
        )
    histogram = feature.numeric.histogram
    if histogram is None:
        return "", Markup()
    caption = "Distribution"
    if histogram.log_x:
        caption += ", on a logarithmic axis"
    elif histogram.log_y:
        caption += ", loans on a logarithmic axis"
    return caption, charts.histogram(
        title,
        histogram.edges,
        histogram.counts,
        x_label="" if feature.percent else feature.unit,
        scale="percent" if feature.percent else "number",
        log_x=histogram.log_x,
        log_y=histogram.log_y,
    )


def _tone(bin_: Bin, average: float) -> Tone:
    if is_too_few(bin_, average):
        return "muted"
    return "late" if is_high(bin_, average) else "accent"


def _heat_map(title: str, matrix: Matrix) -> Markup:
    if not matrix.rows or len(matrix.columns) < 2:
        return Markup()
    return charts.heat_map(title, matrix.rows, matrix.columns, matrix.values)
