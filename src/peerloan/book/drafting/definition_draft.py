"""Draft a loan definition from a table, with doubts as comments."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path

from peerloan.book.drafting.column_profile import ColumnProfile, profile_book
from peerloan.book.drafting.label_draft import draft_label
from peerloan.book.drafting.level_order import find_order
from peerloan.book.drafting.toml_text import array, comment, doubt, literal, quote
from peerloan.book.header import check_separator, show_column
from peerloan.book.parts import BookError, Progress
from peerloan.book.quality.doubts import codes_in_words
from peerloan.book.reader import Book
from peerloan.errors import PeerLoanError
from peerloan.formatting import agree, format_number, plural, show_value
from peerloan.loan import Suggestions
from peerloan.loan.definition import reserved_fault
from peerloan.loan.text import parse_number, stands_for_missing, text_fault

_MOST_LEVELS = 100
# A column with at most this many distinct whole numbers may hold codes.
_FEW = 10
# If this share of cells matches a form (date, percent, …), the whole column has it.
_MOSTLY = 0.9
# In fewer rows all values may differ by chance.
_MANY = 20
_ROLE_DOUBTS = {
    "id": "it differs in every row, so it is taken for the loan's id and is not a feature",
    "date": "it contains dates, so it is taken for the loan's date and is not a feature",
}
_ID_WORDS = frozenset({"id", "uuid", "guid", "key", "nr"})


class _LeftOutError(PeerLoanError):
    """A column that can't be a field; the message gives the reason."""


def draft_definition(
    book: Book, label: str, late: str | None = None, progress: Progress | None = None
) -> str:
    """Draft a definition (TOML) that fits the book, with `# doubt:` comments where it is a guess.

    `label` is the label's column. `late` is its value that means late; None to guess it. Raises
    BookError if there is no such column or value, if the label does not have two values, or if no
    column can be a field.
    """
    if label not in book.columns:
        check_separator(book.name, book.files[0], [label])
        near = Suggestions().nearest(label, tuple(book.columns))
        hint = f" (did you mean {show_column(near)}?)" if near is not None else ""
        raise BookError(f"{book.name}: expected a column {show_column(label)}, got none{hint}")
    if fault := text_fault(label) or reserved_fault(label):
        raise BookError(f"{book.name}: the label's column: {fault}")
    profiles = profile_book(book, progress)
    target = profiles.pop(label)
    label_doubts, label_lines = draft_label(book, target, late)
    roles: dict[str, str] = {}
    blocks = []
    fields = 0
    for profile in profiles.values():
        name = profile.name
        try:
            if role := _role(profile, roles):
                roles[role] = name
                continue
            lines = list(_field(profile))
        except _LeftOutError as reason:
            blocks.append([comment(f"left out: {show_column(name)}: {reason}")])
        else:
            fields += 1
            blocks.append(["[[field]]", f"name = {quote(name)}", *lines])
    if not fields:
        reasons = [line.removeprefix("# ") for block in blocks for line in block]
        reasons += [
            f"{show_column(name)}: taken for the loans' {role}" for role, name in roles.items()
        ]
        raise BookError(
            f"{book.name}: expected a column that can be a field, got none: {'; '.join(reasons)}"
        )
    head = [
        *map(doubt, label_doubts),
        comment(
            f"Drafted from {book.name}: {plural(target.rows, 'loan')}, "
            f"{plural(len(book.columns), 'column')}."
        ),
        *(comment(f"note: {note}") for note in book.notes),
        "# Look at each doubt; where the draft is right, delete the comment.",
        *([doubt(_broken_doubt(target.broken, book))] if target.broken else []),
        "",
        f"model = {quote(_model_name(book))}",
        '# question = "…?" # the question that a decision answers with yes or no, for people',
    ]
    role_lines = [
        line
        for role, name in roles.items()
        for line in (doubt(_ROLE_DOUBTS[role]), f"{role} = {quote(name)}")
    ]
    groups = [head, label_lines, *([["[roles]", *role_lines]] if roles else []), *blocks]
    return "\n\n".join("\n".join(group) for group in groups) + "\n"


def _role(profile: ColumnProfile, taken: dict[str, str]) -> str | None:
    """Guess the role of a column, None for none; raises _LeftOutError if the role is taken."""
    if text_fault(profile.name) or (profile.name != "loan_id" and reserved_fault(profile.name)):
        return None
    if _is_date(profile):
        what, role = "dates", "date"
    elif _is_id(profile):
        what, role = "a different value in each row, as an id does", "id"
    else:
        return None
    if role in taken:
        raise _LeftOutError(f"it has {what}, and {show_column(taken[role])} already does")
    return role


def _is_id(profile: ColumnProfile) -> bool:
    """Whether a column holds the loans' ids; raises _LeftOutError for ids of something else."""
    words = _words(profile.name)
    if words and (words[-1] in _ID_WORDS or words[0] == "id"):
        if not profile.distinct:
            raise _LeftOutError("it is named like an id, but its values repeat")
        return True
    if profile.rows < _MANY or not profile.distinct:
        return False
    if profile.numbers:
        return not profile.texts and profile.whole and profile.rising
    prose = any(re.search(r"\s", level) for level in profile.levels)
    return not prose and profile.forms.total() < _MOSTLY * profile.texts


def _is_date(profile: ColumnProfile) -> bool:
    if not profile.texts or profile.numbers or profile.forms["date"] < profile.texts:
        return False
    try:
        for text in profile.levels:
            datetime.date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def _field(profile: ColumnProfile) -> Iterator[str]:
    """The lines of a field after its name; raises _LeftOutError."""
    present = profile.rows - profile.missing
    if fault := text_fault(profile.name):
        raise _LeftOutError(f"its name can't be a field's: {fault}")
    if fault := reserved_fault(profile.name):
        raise _LeftOutError(fault)
    if profile.empty == profile.rows:
        raise _LeftOutError("no row has a value")
    if len(profile.levels) == 1 and not (profile.empty or profile.uncounted or profile.unreadable):
        raise _LeftOutError(f"every row has the value {show_value(next(iter(profile.levels)))}")
    if not present:
        return _category(profile)
    if profile.forms["percent"] >= _MOSTLY * present:
        raise _LeftOutError(
            f"it contains percentages such as {show_value(profile.example)}; "
            "write them as fractions (0.1306 for 13.06%) and draft again"
        )
    if profile.numbers > 0.95 * present:
        return _number(profile)
    if profile.forms["other date"] + profile.forms["date"] >= _MOSTLY * present:
        raise _LeftOutError(
            f"it contains dates such as {show_value(profile.example)}, which are not a feature; "
            "if they are the loans' dates, write them like 2024-12-31"
        )
    if profile.forms["dressed number"] + profile.numbers >= _MOSTLY * present:
        raise _LeftOutError(
            f"it contains numbers such as {show_value(profile.example)}; "
            "write them plainly (1234.5) and draft again"
        )
    return _category(profile)


def _number(profile: ColumnProfile) -> Iterator[str]:
    yield f"kind = {quote('whole' if profile.whole else 'number')}"
    yield f"label = {quote(_label_of(profile.name))}"
    if thousands := profile.thousands.doubt(profile.highest, None, False):
        yield doubt(f"{thousands.text}: {plural(thousands.rows, 'row')}")
    if profile.texts:
        example = show_value(profile.example)
        rows = plural(profile.texts, "row")
        verb = agree(profile.texts, "has", "have")
        refused = agree(profile.texts, "it is", "they are")
        yield doubt(
            f"{rows} {verb} a value that is not a number, such as {example}; {refused} refused"
        )
    if profile.whole and profile.distinct and profile.rows >= _MANY:
        yield doubt(
            "a different whole number in each row: does it name a loan, a customer or a row? Then "
            "remove this field"
        )
    if profile.whole and len(profile.levels) <= _FEW:
        values = sorted({v for text in profile.levels if (v := _number_or_none(text)) is not None})
        shown = ", ".join(map(format_number, values))
        yield doubt(f"only the values {shown}: a number or a code? A code is a category")
    codes = profile.missing_codes()
    if codes is not None:
        yield doubt(
            f"{codes_in_words(codes, profile.rows)}; does it stand for missing? Then leave these "
            "cells empty and draft again"
        )
    if profile.lowest >= 0:
        yield doubt("no value is negative; is less than 0 impossible?")
        yield "min = 0"
        if profile.highest <= 1 and not profile.whole:
            yield doubt("a fraction? Then percent = true shows 0.1306 as 13.06 %")
    lowest, highest = (codes.lowest, codes.highest) if codes else (profile.lowest, profile.highest)
    yield f"seen = [{literal(lowest)}, {literal(highest)}]"
    if profile.missing:
        yield "missing = true"
    median = profile.median
    yield f"default = {literal(float(round(median)) if profile.whole else float(f'{median:.6g}'))}"


def _category(profile: ColumnProfile) -> Iterator[str]:
    if profile.uncounted or len(profile.levels) > _MOST_LEVELS:
        example = show_value(profile.example)
        raise _LeftOutError(f"it has more than {_MOST_LEVELS} different texts, such as {example}")
    valid = [level for level, _ in profile.levels.most_common() if text_fault(level) is None]
    missing_spellings = [level for level in valid if stands_for_missing(level)]
    levels = [level for level in valid if level not in missing_spellings] or valid
    if not levels:
        raise _LeftOutError("it has no text without control characters")
    refused = profile.unreadable + sum(
        count for level, count in profile.levels.items() if text_fault(level) is not None
    )
    ordered = find_order(levels)
    yield f"kind = {quote('ordered' if ordered else 'category')}"
    yield f"label = {quote(_label_of(profile.name))}"
    if refused:
        rows, verb = plural(refused, "row"), agree(refused, "has", "have")
        yield doubt(
            f"{rows} {verb} a text that is too long, not UTF-8 or has control characters; refused"
        )
    if missing_spellings and levels != valid:
        yield doubt(_missing_doubt(profile, missing_spellings, bool(ordered)))
    if any(level != level.strip() for level in levels):
        yield doubt("some levels begin or end with a space")
    if ordered:
        yield doubt("the order is guessed, lowest first; a value that is not listed is refused")
    elif sum(bool(re.search(r"\d", level)) for level in levels) * 2 > len(levels):
        yield doubt('have the levels an order? Then kind = "ordered" and lowest first')
    yield from array("levels", ordered or levels)
    if profile.empty or levels != valid:
        yield "missing = true"
    yield f"default = {quote(levels[0])}"


def _missing_doubt(profile: ColumnProfile, levels: list[str], ordered: bool) -> str:
    """The doubt about levels that other programs use for a missing value."""
    shown = ", ".join(
        f"{show_value(level)} in {plural(profile.levels[level], 'row')}" for level in levels
    )
    consequence = "these rows are refused" if ordered else "else add it to levels"
    return f"{shown}: does it stand for missing? Then leave these cells empty; {consequence}"


def _broken_doubt(rows: int, book: Book) -> str:
    """The doubt about rows that can't be split into cells."""
    subject = f"{plural(rows, 'row')} {agree(rows, 'has', 'have')}"
    if book.files[0].format == "JSON lines":
        return f"{subject} no JSON object with each key once; training refuses them"
    return f"{subject} too many or too few cells; training refuses them"


def _number_or_none(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None


def _model_name(book: Book) -> str:
    name = Path(book.name).name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:64].strip("-") or "late-payments"


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-zäöüß])(?=[A-ZÄÖÜ])", " ", name)
    return [word for word in re.split(r"[\s_.\-]+", spaced.lower()) if word]


def _label_of(name: str) -> str:
    """Make a label for people from a column name: 'yearly_income' is 'Yearly income'."""
    # A name with spaces is already written for people.
    spaced = name.strip() if re.search(r"\s", name.strip()) else " ".join(_words(name))
    label = spaced or name.strip() or "Column"
    return label[0].upper() + label[1:]
