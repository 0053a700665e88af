"""The code names no column of a loan: only PeerLoan's definition and sample do."""

from __future__ import annotations

import re
from pathlib import Path

import peerloan
from peerloan.loan import default_definition

PACKAGE = Path(peerloan.__file__).parent
MAY_NAME_THEM = {PACKAGE / "loan" / "default.toml", PACKAGE / "sample_data.py"}


def column_names() -> list[str]:
    definition = default_definition()
    return [*definition.names, definition.label.column]


def lines_with_columns(root: Path) -> list[str]:
    """The lines of all files below a folder that name a column."""
    word = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, column_names()))})(?![\w-])")
    lines = []
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path in MAY_NAME_THEM or "__pycache__" in path.parts:
            continue
        # A file that is not UTF-8 is searched too: a name in it is found all the same.
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if match := word.search(line):
                lines.append(f"{path.relative_to(root)}, line {number}: names '{match[1]}': {line}")
    return lines


def test_the_search_finds_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = loan['annual_inc']\nregrade = upgrade\n")
    assert lines_with_columns(tmp_path) == [
        "a.py, line 2: names 'annual_inc': y = loan['annual_inc']"
    ]
    assert {path.name for path in MAY_NAME_THEM if path.is_file()} == {
        "default.toml",
        "sample_data.py",
    }


def test_no_code_names_a_column_of_peerloans() -> None:
    lines = lines_with_columns(PACKAGE)
    assert not lines, "\n".join(lines)
