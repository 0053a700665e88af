"""Drafting the label of a definition: which of its two values means late."""

from __future__ import annotations

from peerloan.book.drafting.column_profile import Profile
from peerloan.book.drafting.label_names import LabelValue, late_value
from peerloan.book.drafting.toml_text import comment, doubt, literal, quote
from peerloan.book.parts import BookError
from peerloan.book.reader import Book, show_column
from peerloan.loan.labels import stands_for
from peerloan.loan.text import counted, parse_number, show_given, stands_for_missing


def draft_label(book: Book, profile: Profile, late: str | None) -> tuple[list[str], list[str]]:
    """Doubts about the label, and its lines; `late` is the value that means late, None to guess.

    Raises BookError if the label has not two values, or if `late` is none of them.
    """
    values = _label_values(book, profile)
    doubts = []
    reason = None
    if late is not None:
        value = _chosen(book, profile, values, late)
    else:
        value, reason, by_name = late_value(profile.name, values)
    on_time = next(other for other in values if other != value)
    known = sum(values.values())
    share = 100 * values[value] / known
    count = f"{values[value]:,} of {counted(known, 'loan')}, {share:.2f} %"
    where = f"{show_column(profile.name)}: {literal(value)}"
    exchange = "if not, exchange late and on_time below, or draft again with --late"
    if reason is not None:
        doubts.append(f"{where} is taken to mean late ({count}) {reason}; {exchange}")
    if share > 50 and (reason is None or by_name):
        doubts.append(
            f"{where} means late, and most loans have it ({count}); are on-time loans the rarer? "
            f"{exchange[0].upper()}{exchange[1:]}"
        )
    lines = ["[label]", f"column = {quote(profile.name)}", f"late = {literal(value)}"]
    lines += [f"on_time = {literal(on_time)}"]
    lines += [comment(f"{values[value]:,} of {counted(known, 'loan')} are late ({share:.2f} %)")]
    if unknown := profile.rows - known:
        verb = "has" if unknown == 1 else "have"
        rows = counted(unknown, "row")
        lines.append(doubt(f"{rows} {verb} no outcome yet; training leaves them out"))
    return doubts, lines


def _chosen(book: Book, profile: Profile, values: dict[LabelValue, int], late: str) -> LabelValue:
    """The label's value that `--late` names; raises BookError."""
    for value in values:
        if stands_for(late, value):
            return value
    where = f"{book.name}: column {show_column(profile.name)}"
    shown = " or ".join(map(literal, values))
    raise BookError(f"{where}: expected late to be {shown}, got {show_given(late)}")


def _label_values(book: Book, profile: Profile) -> dict[LabelValue, int]:
    """The label's two values, of the type that TOML should give them, with their counts; raises
    BookError if there are not two.
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
        # By such a text a table says that the outcome is not known yet.
        values = {v: n for v, n in values.items() if not stands_for_missing(str(v))}
    if len(values) == 2 and not profile.uncounted:
        return values
    got = f"{', '.join(map(literal, [*values][:5]))}{', …' if len(values) > 5 else ''}" or "none"
    todo = ""
    if len(values) > 2:
        todo = (
            "; make a column with one value for loans that are late and one for those that are "
            "not, and leave it empty where the outcome is not known yet"
        )
    raise BookError(
        f"{book.name}: column {show_column(profile.name)}: expected two values of the label, got "
        f"{got}{todo}"
    )
