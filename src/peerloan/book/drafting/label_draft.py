"""Write the label of a drafted definition: its column and its two values."""

from __future__ import annotations

from peerloan.book.drafting.column_profile import ColumnProfile
from peerloan.book.drafting.late_value import LabelValue, late_value
from peerloan.book.drafting.toml_text import comment, doubt, literal, quote
from peerloan.book.header import show_column
from peerloan.book.parts import BookError
from peerloan.book.reader import Book
from peerloan.formatting import agree, plural, show_value
from peerloan.loan.labels import equals_label
from peerloan.loan.text import parse_number, stands_for_missing


def draft_label(
    book: Book, profile: ColumnProfile, late: str | None
) -> tuple[list[str], list[str]]:
    """Draft the label: returns doubts and TOML lines.

    `late` is the value that means late; None to guess it. Raises BookError if the label does not
    have two values, or if `late` is neither of them.
    """
    values = _label_values(book, profile)
    doubts = []
    reason = None
    if late is not None:
        value = _named_value(book, profile, values, late)
    else:
        value, reason, by_name = late_value(profile.name, values)
    on_time = next(other for other in values if other != value)
    outcomes = sum(values.values())
    share = 100 * values[value] / outcomes
    count = f"{values[value]:,} of {plural(outcomes, 'loan')}, {share:.2f} %"
    subject = f"{show_column(profile.name)}: {literal(value)}"
    advice = "if not, exchange late and on_time below, or draft again with --late"
    if reason is not None:
        doubts.append(f"{subject} is taken to mean late ({count}) {reason}; {advice}")
    if share > 50 and (reason is None or by_name):
        doubts.append(
            f"{subject} means late, and most loans have it ({count}); are on-time loans the rarer? "
            f"{advice[0].upper()}{advice[1:]}"
        )
    lines = ["[label]", f"column = {quote(profile.name)}", f"late = {literal(value)}"]
    lines += [f"on_time = {literal(on_time)}"]
    lines += [comment(f"{values[value]:,} of {plural(outcomes, 'loan')} are late ({share:.2f} %)")]
    if unknown := profile.rows - outcomes:
        rows, verb = plural(unknown, "row"), agree(unknown, "has", "have")
        lines.append(doubt(f"{rows} {verb} no outcome yet; training leaves them out"))
    return doubts, lines


def _named_value(
    book: Book, profile: ColumnProfile, values: dict[LabelValue, int], late: str
) -> LabelValue:
    """The label's value that `--late` names; raises BookError."""
    for value in values:
        if equals_label(late, value):
            return value
    where = f"{book.name}: column {show_column(profile.name)}"
    shown = " or ".join(map(literal, values))
    raise BookError(f"{where}: expected late to be {shown}, got {show_value(late)}")


def _label_values(book: Book, profile: ColumnProfile) -> dict[LabelValue, int]:
    """The label's two values in their TOML types, with their counts.

    Raises BookError if there are not exactly two.
    """
    values: dict[LabelValue, int] = {}
    for text, count in profile.levels.items():
        value: LabelValue | None = text
        if profile.levels.keys() <= {"true", "false", ""}:
            value = text == "true" if text else None
        elif not profile.texts:
            number = parse_number(text)
            value = int(number) if number is not None and number.is_integer() else number
        if value is not None:
            values[value] = values.get(value, 0) + count
    if len(values) > 2:
        # NA and the like mean that the outcome is not known yet.
        values = {v: n for v, n in values.items() if not stands_for_missing(str(v))}
    if len(values) == 2 and not profile.uncounted:
        return values
    listed = f"{', '.join(map(literal, [*values][:5]))}{', …' if len(values) > 5 else ''}" or "none"
    advice = ""
    if len(values) > 2:
        advice = (
            "; make a column with one value for loans that are late and one for those that are "
            "not, and leave it empty where the outcome is not known yet"
        )
    raise BookError(
        f"{book.name}: column {show_column(profile.name)}: expected two values of the label, got "
        f"{listed}{advice}"
    )
