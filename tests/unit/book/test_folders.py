"""Books of several files: which files are read, which are skipped, and partition columns."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book import Book, BookError, Fingerprint, open_book, read_loans
from peerloan.cli import main
from peerloan.loan import default_definition
from peerloan.sample_data import SCHEMA, batches

HEADER = "a,b\n"


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def parquet(**columns: list[object]) -> bytes:
    out = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(columns), out)
    return bytes(out.getvalue().to_pybytes())


def rows(book: Book) -> list[dict[str, object]]:
    read: list[dict[str, object]] = []
    for part in book.parts():
        assert not part.problems
        assert part.numbers.tolist() == [*range(len(read) + 1, len(read) + 1 + part.size)]
        read += part.records.to_pylist()
    return read


def refusal(spec: str | Path) -> str:
    with pytest.raises(BookError) as caught:
        rows(open_book(spec))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_subfolders_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "2026-01.csv": HEADER + "3,x\n",
            "2025/12.csv": HEADER + "2,x\n",
            "2025/11/30.csv": HEADER + "1,x\n",
            "2025/.hidden/0.csv": HEADER + "9,x\n",
            ".part.crc": "x",
        },
    )
    book = open_book(tmp_path)
    assert [row["a"] for row in rows(book)] == [b"1", b"2", b"3"]
    assert book.notes == ("3 files were read",)
    assert book.bytes_total == 3 * len(HEADER + "1,x\n")


def test_other_files_are_named_and_a_table_with_another_ending_is_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.parquet": parquet(a=[1]),
            "b.PQ": parquet(a=[2]),
            "sub/notes.txt": "a\n3\n",
            "c.csv.zip": b"PK\x03\x04",
            "d.dat": "",
            "_SUCCESS": "",
            "_old.parquet": parquet(a=[4]),
        },
    )
    book = open_book(tmp_path)
    assert rows(book) == [{"a": 1}, {"a": 2}]
    assert book.notes == (
        "2 files were read",
        "skipped, since they begin with _: _old.parquet",
        "skipped, since they are not a table by ending or content: c.csv.zip, d.dat, sub/notes.txt",
    )


def test_a_table_recognised_by_content_is_not_mixed_with_another_format(
    tmp_path: Path,
) -> None:
    write(tmp_path, {"a.csv": HEADER + "1,x\n", "d.pq": parquet(a=[2], b=["x"])})
    book = open_book(tmp_path)
    assert rows(book) == [{"a": b"1", "b": b"x"}]
    assert book.notes[1:] == ("skipped, since they have another format: d.pq",)


def test_a_folder_without_tables_is_refused_with_its_files_names(tmp_path: Path) -> None:
    write(tmp_path, {"b.txt": "a\n1\n", "c.csv.zip": b"PK\x03\x04"})
    passed_over = "skipped, since they are not a table by ending or content: b.txt, c.csv.zip"
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}: expected files (.csv, .csv.gz, .parquet, .jsonl, ")
    assert message.endswith(f") in this folder, got none; {passed_over}")
    assert refusal(f"{tmp_path}/*").endswith(f" that match, got none; {passed_over}")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty").endswith(" in this folder, got none")


def test_many_names_are_counted(tmp_path: Path) -> None:
    write(tmp_path, {f"{i:02}.txt": "x" for i in range(25)} | {"a.csv": HEADER + "1,x\n"})
    (note,) = open_book(tmp_path).notes[1:]
    assert note.endswith("18.txt, 19.txt and 5 more")


def test_files_without_rows_are_skipped(tmp_path: Path) -> None:
    empty = gzip.compress(b"")
    write(
        tmp_path / "csv",
        {
            "0.csv": "",
            "1.csv": HEADER + "1,x\n",
            "2.csv": HEADER,
            "3.csv": "\r\n\n",
            "4.csv.gz": empty,
            "5.csv": HEADER + "2,x\n",
            "6.csv": "c\n",
        },
    )
    book = open_book(tmp_path / "csv")
    assert [row["a"] for row in rows(book)] == [b"1", b"2"]
    assert book.notes == (
        "2 files were read",
        "skipped, since they have no rows: 0.csv, 2.csv, 3.csv, 4.csv.gz, 6.csv",
    )
    # Types of no value are those that a writer guessed.
    write(
        tmp_path / "parquet",
        {"0.parquet": parquet(a=[]), "1.parquet": parquet(a=["x"]), "2.parquet": b""},
    )
    book = open_book(tmp_path / "parquet")
    assert rows(book) == [{"a": "x"}]
    assert book.notes[1:] == ("skipped, since they have no rows: 0.parquet, 2.parquet",)
    write(tmp_path / "nothing", {"0.csv": "", "1.csv": HEADER})
    assert refusal(tmp_path / "nothing") == (
        f"{tmp_path}/nothing: expected files with loans in this folder, got none; "
        "skipped, since they have no rows: 0.csv, 1.csv"
    )


def test_a_glob_reads_each_file_of_matched_folders_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "data/1.csv": HEADER + "1,x\n",
            "data/sub/2.csv": HEADER + "2,x\n",
            "data/_temporary/3.csv": HEADER + "3,x\n",
            "data/readme.md": "x",
            "data/_SUCCESS": "",
        },
    )
    for pattern in ("data/*", "data/**", "d*"):
        book = open_book(f"{tmp_path}/{pattern}")
        assert [row["a"] for row in rows(book)] == [b"1", b"2"], pattern
        assert any("readme.md" in note for note in book.notes), pattern
    assert any("_temporary" in note for note in open_book(f"{tmp_path}/data").notes)
    with pytest.raises(BookError, match="no file matches"):
        open_book(f"{tmp_path}/data/*.parquet")


def test_a_glob_with_an_ending_reads_every_match(tmp_path: Path) -> None:
    write(tmp_path, {"1.txt": HEADER + "1,x\n", "2.txt": HEADER + "2,x\n", "3.md": "x"})
    book = open_book(f"{tmp_path}/*.txt")
    assert [row["a"] for row in rows(book)] == [b"1", b"2"]
    assert book.notes == ("2 files were read",)


def test_circular_links_end_and_no_row_is_read_twice(tmp_path: Path) -> None:
    write(tmp_path, {"2026.csv": HEADER + "1,x\n", "old/2025.csv": HEADER + "2,x\n"})
    (tmp_path / "latest.csv").symlink_to("2026.csv")
    (tmp_path / "old" / "up").symlink_to("..")
    (tmp_path / "older").symlink_to("old")
    book = open_book(tmp_path)
    assert [row["a"] for row in rows(book)] == [b"1", b"2"]
    assert book.notes == (
        "2 files were read",
        "skipped, since they are already read under another name: latest.csv, old/up, older",
    )
    (tmp_path / "README").symlink_to("nowhere")
    assert open_book(tmp_path).notes[1].endswith("not regular files: README")
    (tmp_path / "gone.csv").symlink_to("nowhere.csv")
    assert refusal(tmp_path) == f"{tmp_path}/gone.csv: is a link to a file that does not exist"


@pytest.mark.parametrize("spec", ["", "/*", "/**/*.csv", "/*/*.csv"])
def test_an_unreadable_folder_is_refused_instead_of_skipped(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"1/1.csv": HEADER + "1,x\n", "2/2.csv": HEADER + "2,x\n"})
    scandir, listdir = os.scandir, os.listdir

    def refused(path: str | Path) -> None:
        if Path(path).name == "2":
            raise PermissionError(13, "Permission denied", str(path))

    def scan(path: str | Path) -> object:
        refused(path)
        return scandir(path)

    def names(path: str | Path) -> list[str]:
        refused(path)
        return listdir(path)

    # The tests may be run by root, who may read everything.
    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "listdir", names)
    assert refusal(f"{tmp_path}{spec}") == f"{tmp_path}/2: can't be read: Permission denied"


def test_a_pipe_is_refused_since_it_can_be_read_only_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert "got a pipe or a device" in refusal(tmp_path / "pipe.csv")
    write(tmp_path, {"1.csv": HEADER + "1,x\n"})
    assert open_book(tmp_path).notes[1:] == ("skipped, since they are not regular files: pipe.csv",)


@pytest.mark.parametrize(
    ("sign", "kind"),
    [
        ("_delta_log/0.json", "a Delta table"),
        (".hoodie/hoodie.properties", "a Hudi table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
    ],
)
def test_a_managed_table_is_refused_because_it_has_outdated_files(
    tmp_path: Path, sign: str, kind: str
) -> None:
    write(tmp_path, {"part-0.parquet": parquet(a=[1]), sign: "{}"})
    assert kind in refusal(tmp_path)


def test_partitions_in_folder_names_are_columns(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "b=x%2Fy/c%3D=1/1.csv": "a\n1\n",
            "b=__HIVE_DEFAULT_PARTITION__/c%3D=02/2.csv": "a\n2\n",
            "b=ä/_c/3.csv": "a\n9\n",
        },
    )
    assert rows(open_book(f"{tmp_path}/b=*/c*/*.csv")) == [
        {"a": b"2", "b": b"", "c=": b"02"},
        {"a": b"1", "b": b"x/y", "c=": b"1"},
    ]
    assert rows(open_book(tmp_path)) == rows(open_book(f"{tmp_path}/*"))
    write(tmp_path, {"b=ä/4.csv": "a\n9\n"})
    assert "got no c=" in refusal(tmp_path)


def test_partition_columns_of_parquet_files_are_text(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "year=2026/grade=A/x.parquet": parquet(a=[1, 2]),
            "year=2025/grade=__HIVE_DEFAULT_PARTITION__/x.parquet": parquet(a=[3]),
        },
    )
    assert rows(open_book(tmp_path)) == [
        {"a": 3, "year": "2025", "grade": None},
        {"a": 1, "year": "2026", "grade": "A"},
        {"a": 2, "year": "2026", "grade": "A"},
    ]


def test_a_partition_folder_as_the_book_is_a_column(tmp_path: Path) -> None:
    write(tmp_path, {"run/year=2026/grade=A/x.csv": "a\n1\n"})
    expected = [{"a": b"1", "year": b"2026", "grade": b"A"}]
    for spec in ("run", "run/year=2026", "run/year=2026/grade=A", "run/year=2026/grade=A/*.csv"):
        assert rows(open_book(f"{tmp_path}/{spec}")) == expected, spec
    assert rows(open_book(tmp_path / "run/year=2026/grade=A/x.csv")) == [{"a": b"1"}]


@pytest.mark.parametrize(
    ("folder", "values", "same"),
    [
        ("b=A", ["A", "A"], True),
        ("b=2026", [2026, 2026], True),
        ("b=01", [1.0, 1.0], True),
        ("b=__HIVE_DEFAULT_PARTITION__", [None, ""], True),
        ("b=A", ["A", "B"], False),
        ("b=A", ["A", None], False),
        ("b=__HIVE_DEFAULT_PARTITION__", [None, "B"], False),
        ("b=1", [1, 2], False),
    ],
)
def test_a_column_of_folder_and_file_must_have_equal_values(
    tmp_path: Path, folder: str, values: list[object], same: bool
) -> None:
    write(tmp_path, {f"{folder}/x.parquet": parquet(b=values)})
    book = open_book(tmp_path)
    if same:
        assert [row["b"] for row in rows(book)] == values
    else:
        message = refusal(tmp_path)
        assert message.startswith(f"{tmp_path}/{folder}/x.parquet: row 2, b: expected ")
        assert "as in its folder's name" in message


@given(st.text(min_size=1, max_size=8))
def test_escaped_folder_names_are_unescaped(
    tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    try:
        name = quote(value, safe="")
    except UnicodeEncodeError:  # a surrogate alone is in no name
        return
    folder = write(tmp_path_factory.mktemp("hive"), {f"b={name}/1.csv": "a\n1\n"})
    assert rows(open_book(folder)) == [{"a": b"1", "b": value.encode()}]


def test_a_folder_has_the_fingerprint_of_its_rows(tmp_path: Path) -> None:
    table = pa.Table.from_batches([*batches(90, 4, "calm")], SCHEMA)
    for name, parts in (("one", [(0, 90)]), ("many", [(0, 20), (20, 0), (20, 50), (70, 20)])):
        for number, (start, rows_of_part) in enumerate(parts):
            path = tmp_path / name / f"{number}" / "part.parquet"
            path.parent.mkdir(parents=True)
            pyarrow.parquet.write_table(table.slice(start, rows_of_part), path)
    digests = set()
    for name in ("one", "many"):
        fingerprint = Fingerprint(default_definition())
        for part in open_book(tmp_path / name).parts():
            batch = read_loans(default_definition(), part, label=True)
            fingerprint.update(batch.loans, batch.labels)
        digests.add(fingerprint.hexdigest())
    assert len(digests) == 1


def test_a_partitioned_book_has_the_same_check_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.Table.from_batches([*batches(60, 3, "calm")], SCHEMA)
    field = next(field for field in default_definition().fields if not field.is_number)
    pyarrow.parquet.write_to_dataset(table, tmp_path / "hive", partition_cols=[field.name])
    pyarrow.parquet.write_table(table, tmp_path / "plain.parquet")
    write(tmp_path / "hive", {"notes.txt": "x"})
    told = {}
    for name in ("hive", "plain.parquet"):
        main(["check", str(tmp_path / name)])
        lines = capsys.readouterr().out.splitlines()
        told[name] = [line.replace(name, "") for line in lines if not line.startswith("note:")]
        if name == "hive":
            assert any(line.endswith(" files were read") for line in lines)
            assert any(line.endswith("content: notes.txt") for line in lines)
    assert told["hive"] == told["plain.parquet"]


def link_in_circles(folder: Path) -> None:
    """Links by which every name has as many others as there are paths of links."""
    for name in ("self", "self2", "self3"):
        (folder / name).symlink_to(".")
    (folder / "old" / "up").symlink_to("..")
    (folder / "older").symlink_to("old")


@pytest.mark.parametrize("spec", ["", "/**", "/**/*", "/**/*.csv", "/**/**/*.csv"])
def test_a_glob_through_links_in_circles_reads_each_file_once(tmp_path: Path, spec: str) -> None:
    write(tmp_path, {"1.csv": HEADER + "1,x\n", "old/2.csv": HEADER + "2,x\n"})
    link_in_circles(tmp_path)
    book = open_book(f"{tmp_path}{spec}")
    assert {row["a"] for row in rows(book)} >= {b"2"}
    assert len(book.files) == len({path.resolve() for path in book.paths})
    assert any("older" in note for note in book.notes if "under another name" in note)


def test_a_glob_reads_each_folder_once_per_pattern_part(tmp_path: Path) -> None:
    write(tmp_path, {"1.csv": HEADER + "1,x\n", "old/2.csv": HEADER + "2,x\n"})
    link_in_circles(tmp_path)
    book = open_book(f"{tmp_path}{'/*' * 30}.csv")
    assert {row["a"] for row in rows(book)} == {b"1", b"2"}


def test_a_linked_folder_does_not_take_a_name_from_the_pattern(tmp_path: Path) -> None:
    write(tmp_path, {"years/2026/1.csv": HEADER + "1,x\n", "years/2025/1.csv": HEADER + "2,x\n"})
    (tmp_path / "years" / "latest").symlink_to("2026")
    (tmp_path / "a").symlink_to("years")
    for pattern in ("**/2026/*.csv", "*/2026/**/*.csv", "**/latest/*.csv", "*/l*/*.csv"):
        book = open_book(f"{tmp_path}/{pattern}")
        assert [row["a"] for row in rows(book)] == [b"1"], pattern
    book = open_book(f"{tmp_path}/**/*.csv")
    assert [path.parent.name for path in book.paths] == ["2025", "2026"]
