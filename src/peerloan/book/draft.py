"""Drafting a loan definition from a table, with its doubts as comments."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path

from peerloan.book.columns import check_separator
from peerloan.book.order import find_order
from peerloan.book.parts import BookError, Progress
from peerloan.book.profile import Profile, profile_book
from peerloan.book.source import Book, show_column
from peerloan.loan.checks import nearest
from peerloan.loan.definition import reserved_fault
from peerloan.loan.labels import stands_for
from peerloan.loan.text import parse_number, show_given, show_number, text_fault

_MOST_LEVELS = 100
# A column with no more distinct whole numbers may hold codes.
_FEW = 10
# The share of cells that makes a form the column's own.
_MOSTLY = 0.9
# Fewer rows than this may all differ by chance.
_MANY = 20
_LATE_WORDS = frozenset(
    {"1", "true", "t", "yes", "y", "late", "bad", "default", "defaulted", "delinquent"}
    | {"overdue", "unpaid", "charged off", "fail", "failed"}
)
_ROLE_DOUBTS = {
    "id": "it differs in every row, so it is taken for the loan's id and is no feature",
    "date": "it holds dates, so it is taken for the loan's date and is no feature",
}
_ID_WORDS = frozenset({"id", "uuid", "guid", "key", "nr"})
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_LabelValue = int | float | str | bool


class _LeftOutError(Exception):
    """A column that can't be drafted as a field; says why."""


def draft_definition(
    book: Book, label: str, late: str | None = None, progress: Progress | None = None
) -> str:
    """A definition in TOML that fits the book, with `# doubt:` comments where it is guessed.

    `label` names the label's column, `late` its value that means late. Raises BookError if there
    is no such column or value, if the label has not two values, or if no column can be a field.
    """
    if label not in book.columns:
        check_separator(book, [label])
        near = nearest(label, book.columns)
        hint = f" (did you mean {show_column(near)}?)" if near is not None else ""
        raise BookError(f"{book.name}: expected a column {show_column(label)}, got none{hint}")
    if fault := text_fault(label) or reserved_fault(label):
        raise BookError(f"{book.name}: the label's column: {fault}")
    profiles = profile_book(book, progress)
    target = profiles.pop(label)
    label_lines = list(_label(book, target, late))
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
            blocks.append([_comment(f"left out: {show_column(name)}: {reason}")])
        else:
            fields += 1
            blocks.append(["[[field]]", f"name = {_quote(name)}", *lines])
    if not fields:
        reasons = [line.removeprefix("# ") for block in blocks for line in block]
        reasons += [
            f"{show_column(name)}: taken for the loans' {role}" for role, name in roles.items()
        ]
        raise BookError(
            f"{book.name}: expected a column that can be a field, got none: {'; '.join(reasons)}"
        )
    head = [
        _comment(f"Drafted from {book.name}: {target.rows:,} loans, {len(book.columns)} columns."),
        *(_comment(f"note: {note}") for note in book.notes),
        "# Look at each doubt; where the draft is right, delete the comment.",
        *([_doubt(_show_broken(target.broken, book))] if target.broken else []),
        "",
        f"model = {_quote(_model_name(book))}",
    ]
    role_lines = [
        line
        for role, name in roles.items()
        for line in (_doubt(_ROLE_DOUBTS[role]), f"{role} = {_quote(name)}")
    ]
    groups = [head, label_lines, *([["[roles]", *role_lines]] if roles else []), *blocks]
    return "\n\n".join("\n".join(group) for group in groups) + "\n"


def _label(book: Book, profile: Profile, late: str | None) -> Iterator[str]:
    values = _label_values(profile)
    where = f"{book.name}: column {show_column(profile.name)}"
    shown = [_literal(value) for value in values]
    if len(values) != 2 or profile.uncounted:
        got = f"{', '.join(shown[:5])}{', …' if len(shown) > 5 else ''}" or "none"
        raise BookError(f"{where}: expected two values of the label, got {got}")
    if late is not None:
        found = [value for value in values if stands_for(late, value)]
        if not found:
            raise BookError(
                f"{where}: expected late to be {' or '.join(shown)}, got {show_given(late)}"
            )
        late_value = found[0]
    else:
        found = [value for value in values if " ".join(_words(str(value))) in _LATE_WORDS]
        late_value = found[0] if len(found) == 1 else min(values, key=lambda value: values[value])
    on_time = next(value for value in values if value != late_value)
    yield "[label]"
    yield f"column = {_quote(profile.name)}"
    if late is None:
        how = "by its name" if len(found) == 1 else "because it is the rarer one"
        yield _doubt(f"{_literal(late_value)} is taken to mean late {how}")
    yield f"late = {_literal(late_value)}"
    yield f"on_time = {_literal(on_time)}"
    known = sum(values.values())
    share = 100 * values[late_value] / known
    yield _comment(f"{values[late_value]:,} of {known:,} loans are late ({share:.2f} %)")
    if known < profile.rows:
        yield _doubt(f"{profile.rows - known:,} rows have no label; training refuses them")


def _label_values(profile: Profile) -> dict[_LabelValue, int]:
    """The label's values, of the type that TOML should give them, with their counts."""
    values: dict[_LabelValue, int] = {}
    for text, count in profile.levels.items():
        value: _LabelValue | None = text
        if profile.levels.keys() <= {"true", "false", ""}:
            value = text == "true" if text else None
        elif not profile.texts:
            number = parse_number(text)
            value = int(number) if number is not None and number.is_integer() else number
        if value is not None:
            values[value] = values.get(value, 0) + count
    return values


def _role(profile: Profile, taken: dict[str, str]) -> str | None:
    """The role that a column seems to have; raises _LeftOutError if another column has it."""
    if text_fault(profile.name) or (profile.name != "loan_id" and reserved_fault(profile.name)):
        return None
    if _is_date(profile):
        what, role = "dates", "date"
    elif _is_id(profile):
        what, role = "a different value in each row, as an id does", "id"
    else:
        return None
    if role in taken:
        raise _LeftOutError(f"it holds {what}, and {show_column(taken[role])} does already")
    return role


def _is_id(profile: Profile) -> bool:
    """Whether a column names the loans; raises _LeftOutError if it names something else."""
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


def _is_date(profile: Profile) -> bool:
    if not profile.texts or profile.numbers or profile.forms["date"] < profile.texts:
        return False
    try:
        for text in profile.levels:
            datetime.date.fromisoformat(text[:10])
    except ValueError:
        return False
    return True


def _field(profile: Profile) -> Iterator[str]:
    """The lines of a field after its name; raises _LeftOutError."""
    present = profile.rows - profile.missing
    if fault := text_fault(profile.name):
        raise _LeftOutError(f"its name can't be a field's: {fault}")
    if fault := reserved_fault(profile.name):
        raise _LeftOutError(fault)
    if profile.empty == profile.rows:
        raise _LeftOutError("no row has a value")
    if len(profile.levels) == 1 and not (profile.empty or profile.uncounted or profile.unreadable):
        raise _LeftOutError(f"every row has the value {show_given(next(iter(profile.levels)))}")
    if not present:
        return _category(profile)
    if profile.forms["percent"] >= _MOSTLY * present:
        raise _LeftOutError(
            f"it holds percent texts such as {show_given(profile.example)}; "
            "write them as fractions (0.1306 for 13.06%) and draft again"
        )
    if profile.numbers > 0.95 * present:
        return _number(profile)
    if profile.forms["other date"] + profile.forms["date"] >= _MOSTLY * present:
        raise _LeftOutError(
            f"it holds dates such as {show_given(profile.example)}, which are no feature; "
            "as the date of the loan they must be written like 2024-12-31"
        )
    if profile.forms["dressed number"] + profile.numbers >= _MOSTLY * present:
        raise _LeftOutError(
            f"it holds numbers such as {show_given(profile.example)}; "
            "write them plainly (1234.5) and draft again"
        )
    return _category(profile)


def _number(profile: Profile) -> Iterator[str]:
    yield f"kind = {_quote('whole' if profile.whole else 'number')}"
    yield f"label = {_quote(_human(profile.name))}"
    if profile.texts:
        example = show_given(profile.example)
        yield _doubt(
            f"1 row holds no number, such as {example}; it is refused"
            if profile.texts == 1
            else f"{profile.texts:,} rows hold no number, such as {example}; they are refused"
        )
    if profile.whole and len(profile.levels) <= _FEW:
        values = sorted({v for text in profile.levels if (v := _number_or_none(text)) is not None})
        shown = ", ".join(map(show_number, values))
        yield _doubt(f"only the values {shown}: a number or a code? A code is a category")
    if profile.lowest >= 0:
        yield _doubt("no value is negative; is less than 0 impossible?")
        yield "min = 0"
        if profile.highest <= 1 and not profile.whole:
            yield _doubt("a fraction? Then percent = true shows 0.1306 as 13.06 %")
    yield f"seen = [{_literal(profile.lowest)}, {_literal(profile.highest)}]"
    if profile.missing:
        yield "missing = true"
    median = profile.median
    yield f"default = {_literal(float(round(median)) if profile.whole else float(f'{median:.6g}'))}"


def _category(profile: Profile) -> Iterator[str]:
    if profile.uncounted or len(profile.levels) > _MOST_LEVELS:
        example = show_given(profile.example)
        raise _LeftOutError(f"it holds more than {_MOST_LEVELS} different texts, such as {example}")
    levels = [level for level, _ in profile.levels.most_common() if text_fault(level) is None]
    if not levels:
        raise _LeftOutError("it holds no text without control characters")
    refused = profile.unreadable + sum(
        count for level, count in profile.levels.items() if text_fault(level) is not None
    )
    ordered = find_order(levels)
    yield f"kind = {_quote('ordered' if ordered else 'category')}"
    yield f"label = {_quote(_human(profile.name))}"
    if refused:
        rows = "1 row holds" if refused == 1 else f"{refused:,} rows hold"
        yield _doubt(f"{rows} text that is too long, no UTF-8 or has control characters; refused")
    if any(level != level.strip() for level in levels):
        yield _doubt("some levels begin or end with a space")
    if ordered:
        yield _doubt("the order is guessed, lowest first; a value that is not listed is refused")
    elif sum(bool(re.search(r"\d", level)) for level in levels) * 2 > len(levels):
        yield _doubt('have the levels an order? Then kind = "ordered" and lowest first')
    yield from _array("levels", ordered or levels)
    if profile.empty:
        yield "missing = true"
    yield f"default = {_quote(levels[0])}"


def _show_broken(rows: int, book: Book) -> str:
    """Rows that can't be taken apart into cells."""
    noun, verb = ("row", "has") if rows == 1 else ("rows", "have")
    if book.files[0].format == "JSON lines":
        return f"{rows:,} {noun} {verb} no JSON object with each key once; training refuses them"
    return f"{rows:,} {noun} {verb} too many or too few cells; training refuses them"


def _number_or_none(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None


def _array(key: str, texts: list[str]) -> list[str]:
    line = f"{key} = [{', '.join(map(_quote, texts))}]"
    if len(line) <= 100:
        return [line]
    return [f"{key} = [", *(f"    {_quote(text)}," for text in texts), "]"]


def _model_name(book: Book) -> str:
    name = Path(book.name).name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:64].strip("-") or "late-payments"


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-zäöüß])(?=[A-ZÄÖÜ])", " ", name)
    return [word for word in re.split(r"[\s_.\-]+", spaced.lower()) if word]


def _human(name: str) -> str:
    """A column's name as a label for people: 'yearly_income' is 'Yearly income'."""
    # A name with spaces is written for people already.
    spaced = name.strip() if re.search(r"\s", name.strip()) else " ".join(_words(name))
    label = spaced or name.strip() or "Column"
    return label[0].upper() + label[1:]


def _quote(text: str) -> str:
    # JSON's escapes are TOML's, which wants one more.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _literal(value: _LabelValue) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quote(value)
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)


def _comment(text: str) -> str:
    return "# " + _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def _doubt(text: str) -> str:
    return _comment(f"doubt: {text}")
