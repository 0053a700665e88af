"""The command line on real files: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from helpers.commands import Call, Run
from helpers.drafts import hand_made
from helpers.paths import FORMATS
from peerloan.book import open_book
from peerloan.loan import Field, Loans, default_definition, read_definition
from peerloan.model import LevelTable, NumberTable, Scorecard
from peerloan.registry import Draft, Store
from peerloan.settings import settings_table

COMMANDS = [
    *("sample", "define", "check", "explore", "train", "bootstrap", "score", "models"),
    *("serve", "demo"),
]
ON_MODELS = ["list", "show", "promote", "challenge", "rollback", "verify", "policy", "compare"]


@pytest.fixture
def lender(tmp_path: Path) -> tuple[str, str]:
    """Put two small versions of another lender into the test's store: scorecard and ONNX."""
    names = []
    for kind in ("scorecard", "onnx"):
        folder = next(p for p in (FORMATS / f"format-1-{kind}").iterdir() if p.is_dir())
        shutil.copytree(folder, tmp_path / "store" / "versions" / folder.name)
        names.append(folder.name)
    return names[0], names[1]


def furniture(path: Path, bad: bool = False) -> Path:
    """Write a few loans of that lender; with `bad`, two rows have a wrong value."""
    rows = [
        [1000 + i, i % 5, "lamp", "ABC"[i % 3], "bad" if i % 9 == 0 else "good"] for i in range(9)
    ]
    if bad:
        rows[3][0] = -1
        rows[7][3] = "Z"
    with path.open("w", encoding="utf-8", newline="") as file:
        header = ["income.monthly", "open loans", "Möbel", "rating", "outcome"]
        csv.writer(file).writerows([header, *rows])
    return path


# Help


@pytest.mark.parametrize(
    "command", [[], *([c] for c in COMMANDS), *(["models", c] for c in ON_MODELS)]
)
def test_every_command_helps(call: Call, command: list[str]) -> None:
    result = call(*command, "--help")
    assert result.code == 0
    assert result.out.startswith("Usage: ")
    assert result.err == ""
    assert call(*command, "-h").out == result.out


def test_the_help_lists_every_setting(call: Call) -> None:
    listed = " ".join(call("--help").out.split())
    for variable, _, default, text in settings_table():
        entry = f"{text} (default: {default})" if default else text
        assert f"{variable} {entry}" in listed


def test_the_help_lists_every_command(call: Call) -> None:
    listed = call("--help").out
    assert all(f"\n  {command} " in listed for command in COMMANDS)
    listed = call("models", "--help").out
    assert all(f"\n  {command} " in listed for command in ON_MODELS)
    assert "version" in call("--version").out


@pytest.mark.parametrize(
    "command",
    [
        ["nonsense"],
        ["--nonsense"],
        ["sample"],
        ["sample", "x.csv", "--loans", "many"],
        ["sample", "x.csv", "--loans", "0"],
        ["sample", "x.csv", "--loans", "-5"],
        ["sample", "x.csv", "--seed", "-1"],
        ["sample", "x.csv", "--scenario", "boom"],
        ["sample", "x.csv", "y.csv"],
        ["define", "x.csv"],
        ["define", "x.csv", "--label", "y"],
        ["check"],
        ["check", "x.csv", "--nonsense"],
        ["train"],
        ["train", "x.csv", "--candidate", "magic"],
        ["train", "x.csv", "--aim", "profit=3"],
        ["train", "x.csv", "--aim", "cost=cheap"],
        ["train", "x.csv", "--aim", "cost"],
        ["train", "x.csv", "--aim", "recall="],
        ["train", "x.csv", "--aim", "f2=1"],
        ["train", "x.csv", "--aim", "balanced=1"],
        ["train", "x.csv", "--aim", ""],
        ["train", "x.csv", "--recalibrate", "v-1", "--quick"],
        ["train", "x.csv", "--recalibrate", "v-1", "--candidate", "binned"],
        ["train", "x.csv", "--recalibrate", "v-1", "--later", "y.csv"],
        ["train", "x.csv", "--recalibrate", "v-1", "--group", "purpose"],
        ["train", "x.csv", "--recalibrate", "v-1", "--definition", "d.toml"],
        ["score", "x.csv"],
        ["score", "x.csv", "-o", "y.csv", "--reasons", "some"],
        ["models", "nonsense"],
        ["models", "show"],
        ["models", "promote"],
        ["models", "policy"],
        ["models", "policy", "v-1", "--aim", "magic=1"],
        ["models", "compare", "v-1", "v-2"],
        ["serve", "--port", "0"],
        ["serve", "--workers", "0"],
    ],
)
def test_wrong_use_is_an_error_and_exits_2(call: Call, tmp_path: Path, command: list[str]) -> None:
    result = call(*command)
    assert result.code == 2
    assert result.out == ""
    assert "Error: " in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sample", "x.txt"], "x.txt: expected a name that ends in"),
        (["sample", "nowhere/x.csv"], "nowhere"),
        (["define", "x.csv", "--label", "y", "-o", "d.toml"], "x.csv: no such file"),
        (["check", "x.csv"], "x.csv: no such file"),
        (["check", ""], "expected a file, a folder or a glob, got an empty name"),
        (["check", "."], "in this folder, got none"),
        (["check", "x.csv", "--definition", "d.toml"], "d.toml: can't be read"),
        (["check", "x.csv", "--definition", "."], "can't be read"),
        (["train", "x.csv"], "x.csv: no such file"),
        (["train", "x.csv", "--definition", "d.toml"], "d.toml: can't be read"),
        (["score", "x.csv", "-o", "y.csv"], "no champion"),
        (["score", "x.csv", "-o", "y.csv", "--model", "v-1"], "no version 'v-1'"),
        (["models", "show", "v-1"], "no version 'v-1'"),
        (["models", "show", "../x"], "no version '../x'"),
        (["models", "promote", "v-1"], "no version 'v-1'"),
        (["models", "challenge", "v-1"], "no version 'v-1'"),
        (["models", "verify", "v-1"], "no version 'v-1'"),
        (["models", "rollback"], "no champion before"),
        (["models", "policy", "v-1"], "no version 'v-1'"),
        (["models", "compare", "v-1", "v-2", "x.csv"], "no version 'v-1'"),
        (["train", "x.csv", "--recalibrate", "v-1"], "x.csv: no such file"),
    ],
)
def test_a_failed_command_prints_one_line_and_exits_1(
    call: Call, tmp_path: Path, command: list[str], words: str
) -> None:
    result = call(*command)
    assert result.code == 1
    assert words in result.err
    assert result.err.splitlines()[-1].startswith("peerloan: ")
    assert len([line for line in result.err.splitlines() if "definition: " not in line]) == 1
    assert not list(tmp_path.iterdir())


# Settings


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b'stoer = "x"\n',
            "expected one of the settings store, tokens, ledger, ledger_password_file, seal, "
            "rules, prefix, got 'stoer'",
        ),
        (b"store = 3\n", "store: expected text, got 3"),
        (b'store = ""\n', "store: expected text"),
        (b'ledger = ["postgresql://a:hidden@b/c"]\n', "ledger: expected text, got another value"),
        (b"store = [\n", "can't be read"),
        (b'store = "\xff"\n', "can't be read"),
        (None, "can't be read"),
    ],
)
def test_wrong_settings_are_named_and_exit_2(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "my.toml").write_bytes(content)
    monkeypatch.setenv("PEERLOAN_CONFIG", "my.toml")
    result = call("models", "list")
    assert result.code == 2
    assert result.err.startswith("peerloan: my.toml: ")
    assert words in result.err
    assert "hidden" not in result.err


def test_the_store_comes_from_the_environment_else_from_the_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peerloan.toml").write_text('store = "from-file"\n')
    assert "store" in call("models", "list").err
    monkeypatch.delenv("PEERLOAN_STORE")
    assert "no versions in from-file" in call("models", "list").err
    (tmp_path / "other.toml").write_text('store = "from-other"\n')
    monkeypatch.setenv("PEERLOAN_CONFIG", "other.toml")
    assert "no versions in from-other" in call("models", "list").err


# Books


def test_sample_as_a_process(run: Run, tmp_path: Path) -> None:
    done = run("sample", "book.csv", "--loans", "100")
    assert (done.returncode, done.stdout) == (0, "")
    assert "100 loans to book.csv" in done.stderr, "progress is a line where there is no terminal"
    with (tmp_path / "book.csv").open(encoding="utf-8") as file:
        assert len(file.readlines()) == 101


@pytest.mark.parametrize("scenario", ["calm", "recession", "rate-shock", "new-channel"])
def test_every_scenario_in_every_ending_is_the_same_book(
    call: Call, tmp_path: Path, scenario: str
) -> None:
    fingerprints = set()
    for ending in (".csv", ".csv.gz", ".parquet"):
        name = f"book{ending}"
        command = ["sample", name, "--loans", "300", "--seed", "3", "--scenario", scenario]
        assert call(*command).code == 0
        first = (tmp_path / name).read_bytes()
        refused = call(*command)
        assert (refused.code, "already exists" in refused.err) == (1, True)
        assert call(*command, "--overwrite").code == 0
        assert (tmp_path / name).read_bytes() == first, "the same seed gives the same bytes"
        result = call("check", name, "--json")
        assert result.code == 0
        report = json.loads(result.out)
        assert (report["rows"], report["bad_rows"]) == (300, 0)
        fingerprints.add(json.dumps([report["late"], report["missing"]]))
    assert len(fingerprints) == 1
    assert pq.read_table(tmp_path / "book.parquet").num_rows == 300
    assert open_book(tmp_path / "book.csv.gz").columns == open_book(tmp_path / "book.csv").columns


def test_check_of_a_good_book_as_a_process(run: Run, sample_book: Path) -> None:
    done = run("check", sample_book)
    assert done.returncode == 0
    assert done.stdout.startswith("definition: PeerLoan's own\n")
    assert done.stdout.endswith("no problems\n")
    assert "reading " in done.stderr


def test_check_names_bad_rows_and_exits_1(
    call: Call, tmp_path: Path, lender: tuple[str, str]
) -> None:
    call("models", "promote", lender[0])
    furniture(tmp_path / "bad.csv", bad=True)
    result = call("check", "bad.csv")
    assert result.code == 1
    assert f"definition: the champion's, {lender[0]}" in result.out
    assert "  row 4: -1\n" in result.out
    assert "2 of 9 rows have problems" in result.out
    assert "peerloan: bad.csv: does not fit the definition" in result.err
    as_json = call("check", "bad.csv", "--json")
    assert as_json.code == 1
    report = json.loads(as_json.out)
    assert report["bad_rows"] == 2
    assert not report["ok"]
    assert report["definition"] == f"the champion's, {lender[0]}"
    assert [problem["rows"] for problem in report["problems"]] == [[[4, 4]], [[8, 8]]]


def test_check_refuses_a_table_without_column_names(call: Call, tmp_path: Path) -> None:
    (tmp_path / "book.csv").write_text("12000,0.2,car,A\n13000,0.1,car,B\n")
    result = call("check", "book.csv")
    assert result.code == 1
    assert result.err.splitlines()[-1] == (
        "peerloan: book.csv: expected a first line of column names, got what looks like a row of "
        "values: 12000, 0.2, car, …"
    )


def test_check_names_the_line_of_a_wrong_definition(call: Call, sample_book: Path) -> None:
    Path("loan.toml").write_text(
        'model = "x"\n[label]\ncolumn = "is_late"\nlate = 1\non_time = "1"\n'
        '[[field]]\nname = "dti"\nkind = "number"\nlabel = 3\n'
    )
    result = call("check", sample_book, "--definition", "loan.toml")
    assert (result.code, result.out) == (1, "")
    line = "peerloan: loan.toml, line 9, key field.label: expected text, got a whole number\n"
    assert result.err == line
    Path("loan.toml").write_text(Path("loan.toml").read_text().replace("label = 3", "label = '3'"))
    result = call("check", sample_book, "--definition", "loan.toml")
    assert result.err == (
        "peerloan: loan.toml, line 5, key label.on_time: expected another value than late's, "
        "got '1'\n"
    )


def test_define_warns_of_roles_and_broken_rows(call: Call, tmp_path: Path) -> None:
    rows = [f"K{i},{i % 7 + 0.5},{'bad' if i % 9 == 0 else 'good'}\n" for i in range(60)]
    (tmp_path / "book.csv").write_text("acct,debt,state\n" + "".join(rows) + "K60,1\n")
    result = call("define", "book.csv", "--label", "state", "-o", "loan.toml")
    assert result.code == 0, result.err
    written = (tmp_path / "loan.toml").read_text()
    assert "# doubt: 1 row has too many or too few cells; training refuses them\n" in written
    assert (
        "# doubt: it differs in every row, so it is taken for the loan's id and is not a feature\n"
        'id = "acct"\n'
    ) in written
    assert read_definition(tmp_path / "loan.toml").names == ("debt",)


def test_score_of_the_champion(call: Call, tmp_path: Path, lender: tuple[str, str]) -> None:
    furniture(tmp_path / "book.csv")
    call("models", "promote", lender[1])
    result = call("score", "book.csv", "-o", "out.csv", "--reasons", "none")
    assert result.code == 0
    assert result.out.startswith("out.csv: 9 loans, ")
    assert call("score", "book.csv", "-o", "out.csv").code == 1
    assert call("score", "book.csv", "-o", "out.csv", "--overwrite").code == 0
    for out in ("book.csv", "./book.csv", tmp_path / "book.csv"):
        result = call("score", "book.csv", "-o", out, "--overwrite")
        assert result.code == 1
        assert "is one of the book's own files" in result.err
    assert open_book(tmp_path / "book.csv").columns[-1] == "outcome"
    result = call("score", "out.csv", "-o", "again.csv")
    assert result.code == 1
    assert "scored book" in result.err


# Models


def test_the_life_of_two_versions(call: Call, lender: tuple[str, str]) -> None:
    first, second = lender
    result = call("models", "promote", first, "--why", "it is [first] :smile: [/b] \x1b ünd")
    assert result.code == 0
    assert f"champion: {first} (state 1)" in result.err
    assert call("models", "challenge", second).code == 0
    again = call("models", "promote", first)
    assert (again.code, "already the champion" in again.err) == (1, True)

    listed = call("models", "list")
    assert listed.code == 0
    assert first in listed.out, "a version's name is never wrapped"
    assert second in listed.out
    assert "[first] :smile: [/b]" in " ".join(listed.out.split()), (
        "the reason is not read as markup"
    )
    as_json = json.loads(call("models", "list", "--json").out)
    assert {(row["version"], row["alias"]) for row in as_json["versions"]} == {
        (first, "champion"),
        (second, "challenger"),
    }
    assert [state["action"] for state in as_json["history"]] == ["promote", "challenge"]

    assert call("models", "promote", second, "--why", "better").code == 0
    result = call("models", "rollback", "--why", "worse")
    assert result.code == 0
    assert f"champion: {first} (state 4)" in result.err
    assert call("models", "rollback").code == 1
    history = json.loads(call("models", "list", "--json").out)["history"]
    assert [(state["number"], state["champion"], state["why"]) for state in history][2:] == [
        (3, second, "better"),
        (4, first, "worse"),
    ]


def test_a_reason_is_added_to_a_change_later(call: Call, lender: tuple[str, str]) -> None:
    first, second = lender
    call("models", "promote", first, "--why", "the first")
    call("models", "promote", second)
    result = call("models", "explain-change", "2", "--why", "better on the newest quarter")
    assert result.code == 0
    assert "change 2: better on the newest quarter (added later by " in result.err
    listed = " ".join(call("models", "list").out.split())
    assert "the first" in listed
    assert "better on the newest quarter (added later by " in listed
    history = json.loads(call("models", "list", "--json").out)["history"]
    assert [state.get("explanation", {}).get("why") for state in history] == [
        None,
        "better on the newest quarter",
    ]
    for number, why, message in (
        ("1", "x", "change 1 already has a reason, by "),
        ("2", "x", "already has a reason: better on the newest quarter (added later by "),
        ("3", "x", "no change 3 in "),
        ("2", "a\x1bb", "without control characters"),
    ):
        refused = call("models", "explain-change", number, "--why", why)
        assert (refused.code, message in refused.err) == (1, True), refused.err
    assert call("models", "explain-change", "2").code == 2
    assert call("models", "explain-change", "x", "--why", "y").code == 2


def test_models_show_and_verify(call: Call, lender: tuple[str, str]) -> None:
    for version in lender:
        result = call("models", "show", version)
        assert result.code == 0
        assert "made by arithmetic" in result.out
        assert version in result.out
        as_json = json.loads(call("models", "show", version, "--json").out)
        assert as_json["version"] == version
        assert as_json["alias"] == ""
        verified = call("models", "verify", version)
        assert verified.code == 0
        assert "20 golden examples verified" in verified.err


def test_a_damaged_version_is_listed_as_unreadable_and_refused(
    call: Call, tmp_path: Path, lender: tuple[str, str]
) -> None:
    good, bad = lender
    (tmp_path / "store" / "versions" / bad / "manifest.json").write_text("[" * 100_000)
    shutil.copytree(tmp_path / "store" / "versions" / good, tmp_path / "store/versions/Copy of it")
    result = call("models", "list")
    assert result.code == 0
    assert "unreadable" in result.out
    rows = json.loads(call("models", "list", "--json").out)["versions"]
    assert [row["version"] for row in rows] == [bad, good]
    for command in ("show", "verify", "promote", "challenge"):
        result = call("models", command, bad)
        assert result.code == 1
        assert result.err.startswith(f"peerloan: {bad}: manifest.json can't be read")
    assert call("models", "promote", good).code == 0


def test_a_version_without_auc_is_valid_json(
    call: Call, tmp_path: Path, lender: tuple[str, str]
) -> None:
    path = tmp_path / "store" / "versions" / lender[0] / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["metrics"]["auc"]
    path.write_text(json.dumps(manifest))

    def refuse(text: str) -> None:
        raise AssertionError(text)

    rows = json.loads(call("models", "list", "--json").out, parse_constant=refuse)["versions"]
    assert next(row for row in rows if row["version"] == lender[0])["auc"] is None
    assert call("models", "list").code == 0


def draft_with_another_field() -> Draft:
    """A version of PeerLoan's model that requires one more field and scores all loans alike."""
    default = default_definition()
    field = Field("income.monthly", "number", "Monthly income", default=3000)
    definition = msgspec.structs.replace(default, fields=(*default.fields, field))
    loans = Loans.of(definition, [tuple(field.default for field in definition.fields)] * 4)
    tables = [
        NumberTable(field.name, (), (0.0,), 0.0)
        if field.is_number
        else LevelTable(field.name, (), (), 0.0, 0.0)
        for field in definition.fields
    ]
    return hand_made(definition, Scorecard(-4.0, tuple(tables)), loans)


def test_a_breaking_promotion_needs_the_option(call: Call, store: Store) -> None:
    first, second = store.versions()[0], store.publish(draft_with_another_field())
    assert call("models", "promote", first).code == 0
    result = call("models", "promote", second)
    assert result.code == 1
    assert "income.monthly: is new and required" in result.err
    assert "--breaking" in result.err
    assert call("models", "promote", second, "--breaking").code == 0


def test_a_version_of_another_model_is_no_champion(
    call: Call, store: Store, lender: tuple[str, str]
) -> None:
    ours = next(version for version in store.versions() if version not in lender)
    assert call("models", "promote", ours).code == 0
    for command in ("promote", "challenge"):
        result = call("models", command, lender[0], *(["--breaking"] * (command == "promote")))
        assert result.code == 1
        assert "use another store for 'furniture-credit'" in result.err


# From a table to a champion


@pytest.mark.longer
def test_define_train_promote_and_score_as_processes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another lender's table goes from `define` to `score` without a line of code."""
    # With several threads on a busy machine, training would take minutes.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with (tmp_path / "loans.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["acct.no", "net income", "debt-ratio", "Purpose of loan", "status"])
        for i in range(800):
            bad = i * 7919 % 100 < 12 + 30 * (i % 4 == 0)
            purpose = ["car (used)", "home & garden", "+ other"][i % 3]
            rows.writerow([f"K{i}", 1000 + i % 4 * 900, i % 17 / 10, purpose, ["good", "bad"][bad]])

    done = run("define", "loans.csv", "--label", "status", "-o", "loan.toml")
    assert done.returncode == 0, done.stderr
    definition = read_definition(tmp_path / "loan.toml")
    assert definition.label.late == "bad"
    assert "net income" in definition.names
    refused = run("define", "loans.csv", "--label", "status", "-o", "loan.toml")
    assert refused.returncode == 1
    assert "already exists; --overwrite" in refused.stderr

    done = run(
        *("train", "loans.csv", "--definition", "loan.toml", "--quick", "--json"),
        *("--candidate", "additive", "--candidate", "basic", "--promote", "--why", "first"),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("definition: loan.toml\n")
    for line in ("reading loans.csv", "additive: evaluating and reporting", "publishing"):
        assert f"{line}\n" in done.stderr, "a line for each finished step"
    report = json.loads(done.stdout)
    assert report["definition"] == "loan.toml"
    assert {candidate["candidate"] for candidate in report["candidates"]} == {"additive", "basic"}
    best = report["candidates"][0]["version"]
    assert [candidate["chosen"] for candidate in report["candidates"]] == [True, False]
    state = Store(tmp_path / "store").state()
    assert (state.champion, state.why) == (best, "first")

    done = run("models", "list")
    assert done.returncode == 0
    assert best in done.stdout
    done = run("models", "verify", best)
    assert done.returncode == 0
    done = run("score", "loans.csv", "-o", "scored.csv", "--reasons", "none")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("scored.csv: 800 loans")


def test_training_refuses_a_bad_row_and_publishes_nothing(call: Call, tmp_path: Path) -> None:
    call("sample", "book.csv", "--loans", "2000")
    lines = (tmp_path / "book.csv").read_text().splitlines(keepends=True)
    lines[500] = (
        lines[500].replace(",RENT,", ",,").replace(",MORTGAGE,", ",,").replace(",OWN,", ",,")
    )
    (tmp_path / "book.csv").write_text("".join(lines))
    result = call("train", "book.csv", "--quick")
    assert result.code == 1
    assert "row 500, home_ownership: expected" in result.err
    assert "peerloan check" in result.err
    assert not (tmp_path / "store").exists()


def test_training_refuses_a_book_with_too_few_late_loans(call: Call, tmp_path: Path) -> None:
    call("sample", "book.csv", "--loans", "100")
    result = call("train", "book.csv")
    assert result.code == 1
    assert "at least 20 loans that are late" in result.err
    assert not (tmp_path / "store").exists()


def test_training_with_a_wrong_definition_names_line_and_key(call: Call, tmp_path: Path) -> None:
    call("sample", "book.csv", "--loans", "100")
    (tmp_path / "loan.toml").write_text('model = "x"\n[label]\ncolumn = "is_late"\nlate = 1\n')
    result = call("train", "book.csv", "--definition", "loan.toml")
    assert result.code == 1
    assert "loan.toml, line" in result.err
    assert "key" in result.err


def test_training_for_a_store_of_another_model_is_refused(
    call: Call, tmp_path: Path, lender: tuple[str, str], sample_book: Path
) -> None:
    (tmp_path / "loan.toml").write_text(
        'model = "other"\n[label]\ncolumn = "is_late"\nlate = 1\non_time = 0\n'
        '[[field]]\nname = "int_rate"\nkind = "number"\nlabel = "Rate"\n'
    )
    result = call(
        "train", sample_book, "--definition", "loan.toml", "--candidate", "logistic", "--promote"
    )
    assert result.code == 1
    assert "'furniture-credit'; use another store for 'other'" in result.err
    assert Store(tmp_path / "store").versions() == sorted(lender)
    assert Store(tmp_path / "store").state().champion is None


def test_a_store_that_can_not_be_written_is_one_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lender: tuple[str, str]
) -> None:
    (tmp_path / "store" / "aliases").write_text("")
    result = call("models", "promote", lender[0])
    assert result.code == 1
    assert "can't be written" in result.err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("serve",), "--port"),
        (("demo",), "--port"),
        (("monitor", "--every", "1h"), "--metrics-port"),
    ],
)
def test_a_taken_port_names_the_option_to_change(
    call: Call, command: tuple[str, ...], option: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = call(*command, option, port)
    assert result.code == 1
    assert f"port {port} is taken: choose another, e.g. `peerloan {command[0]}" in result.err
    assert f"{option} {port + 1 if port < 65535 else 5000}`" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    "host", ["no-such-host.invalid", "", "a" * 70 + ".invalid", "192.0.2.7", "[::1]"]
)
def test_a_host_that_is_no_address_of_this_machine_is_one_line(call: Call, host: str) -> None:
    result = call("serve", "--host", host)
    assert result.code == 1
    assert "--host" in result.err
    assert "such as 127.0.0.1" in result.err
    assert len(result.err.splitlines()) == 1


def test_a_folder_that_may_not_be_read_is_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, lender: tuple[str, str]
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = call("models", "list")
    assert (result.code, result.out) == (1, "")
    assert result.err.endswith("store/versions can't be read: Permission denied\n")


# Output


@pytest.mark.parametrize("arguments", [["models", "list"], ["models", "list", "--json"]])
def test_a_closed_pipe_causes_no_traceback(
    tmp_path: Path, lender: tuple[str, str], arguments: list[str]
) -> None:
    """As in `peerloan models list | head -0`, which closes the pipe before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "peerloan", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PEERLOAN_STORE": str(tmp_path / "store")},
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["models", "list"], ["models", "list", "--json"]])
def test_a_full_disk_under_the_output_is_one_line(
    tmp_path: Path, lender: tuple[str, str], arguments: list[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "peerloan", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PEERLOAN_STORE": str(tmp_path / "store")},
            timeout=60,
            check=False,
        )
    assert done.stderr == "peerloan: the output: No space left on device\n"
    assert done.returncode == 1


def test_a_terminal_with_a_small_encoding_gets_escapes(
    tmp_path: Path, lender: tuple[str, str]
) -> None:
    Store(tmp_path / "store").promote(lender[0], "schöner €")
    environment = os.environ | {
        "PYTHONIOENCODING": "latin-1:strict",
        "PEERLOAN_STORE": str(tmp_path / "store"),
    }
    for arguments in (["models", "list"], ["models", "list", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "peerloan", *arguments],
            capture_output=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert "schöner \\u20ac".encode("latin-1") in done.stdout


NOTE_DURING_PROGRESS = """
from peerloan.cli.console import note, progress
with progress() as show:
    show("working", 0.5)
    note("note meanwhile")
"""


def test_a_note_during_a_progress_bar_is_printed_above_it() -> None:
    terminal, output = os.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        environment = os.environ | {"TERM": "xterm"}
        command = [sys.executable, "-c", NOTE_DURING_PROGRESS]
        done = subprocess.run(command, stderr=output, env=environment, timeout=60)
        os.close(output)
        text = b""
        with contextlib.suppress(OSError):  # the terminal's end
            while part := screen.read(65536):
                text += part
    assert done.returncode == 0
    # The bar is cleared, and drawn again below the note.
    assert b"\x1b[2Knote meanwhile\r\n" in text
    assert text.rindex(b"working") > text.index(b"note meanwhile")
