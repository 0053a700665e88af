"""What a ledger's URL and the environment ask of PostgreSQL holds, beside what the ledger needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.commands import Run
from helpers.ledgers import append, record
from helpers.pgbouncer import PgBouncer
from helpers.postgres import USER, Postgres
from peerloan.database import Database, LedgerError
from peerloan.database.url_options import connection_options, parse_settings, read_url
from peerloan.ledger import Chain, Seal
from peerloan.ledger.audit.verify import verify
from peerloan.ledger.outcomes import OutcomeRecorder
from peerloan.ledger.retention import purge
from peerloan.loan import default_definition
from peerloan.uuid7 import text as id_text
from peerloan.worker.lease import Lease

TABLES = (
    "SELECT DISTINCT schemaname FROM pg_tables "
    "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
)
IN_RISK = "?options=-csearch_path%3Drisk"


@pytest.fixture(scope="module")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """A pooler that shares few sessions, each for a transaction."""
    made = PgBouncer(postgres, default_pool_size=4)
    yield made
    made.remove()


@pytest.fixture(params=["direct", "pgbouncer"])
def url(request: pytest.FixtureRequest, postgres: Postgres) -> str:
    """A database with a schema `risk`; the test runs once with a pooler in front."""
    made = postgres.new()
    execute(made, "CREATE SCHEMA risk")
    if request.param == "direct":
        return made
    pooler: PgBouncer = request.getfixturevalue("pgbouncer")
    return pooler.through(made)


def execute(url: str, *statements: str) -> list[Any]:
    """Have statements done, each for itself; the rows of the last."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def end_others(url: str) -> None:
    """End every other session of a database."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    execute(url, f"SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE {others}")


def test_every_table_is_in_the_schema_that_is_asked_for(url: str, tmp_path: Path) -> None:
    """Also what is written, read, erased and proved, where another schema has tables of the same
    names that would be found first.
    """
    database = Database(url + IN_RISK)
    assert database.upgrade()
    execute(url, "CREATE TABLE public.decisions ()", "CREATE TABLE public.alembic_version ()")
    assert Database(url + IN_RISK).upgrade() == []
    seal = Seal(tmp_path / "seal")
    chain = Chain(database, seal)
    old = record(time_ms=1_700_000_000_000)
    append(chain, [old, made := record()])
    chain.close()
    rows = [(1, {"id": id_text(made.id), "is_late": 1})]
    (known,) = OutcomeRecorder(database, default_definition(), "test").record(rows)
    assert not isinstance(known, list)
    assert Lease(database).take()
    assert purge(database, seal, 1_800_000_000_000 - 86_400_000 * 365, "test") == 1
    report = verify(database, seal)
    assert (report.records, report.erased, dict(report.findings.totals)) == (2, 1, {})
    counts = "SELECT count(*) FROM risk.decisions", "SELECT count(*) FROM risk.outcomes"
    assert [execute(url, each) for each in counts] == [[(2,)], [(1,)]]
    rest = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert execute(url, rest + " ORDER BY 1") == [("alembic_version",), ("decisions",)]


def test_a_role_s_search_path_holds(url: str) -> None:
    name = Database(url).url.database
    execute(url, f"ALTER ROLE {USER} IN DATABASE {name} SET search_path = risk")
    end_others(url)  # which a pooler keeps open, from before
    Database(url).upgrade()
    assert execute(url, TABLES) == [("risk",)]


@pytest.mark.parametrize("path", ["riks", "riks,public", '"Risk"', "$user,riks", ""])
def test_a_search_path_without_its_schema_is_refused(url: str, path: str) -> None:
    with pytest.raises(LedgerError, match=r"search_path is .*: expected a schema that exists"):
        Database(f"{url}?options=-csearch_path%3D{path}").upgrade()
    assert execute(url, TABLES) == []


def test_a_ledger_that_only_shows_through_is_refused(url: str) -> None:
    Database(url).upgrade()
    both = Database(f"{url}?options=-csearch_path%3Drisk,public")
    for call in (both.check, both.upgrade):
        with pytest.raises(LedgerError, match=r"tables are in public, .* would be created in risk"):
            call()
    assert execute(url, TABLES) == [("public",)]


def test_what_others_leave_in_a_shared_session_moves_no_table(
    url: str, postgres: Postgres, pgbouncer: PgBouncer
) -> None:
    pooled = pgbouncer.through(url)
    execute(pooled, "SET search_path = risk")  # its session is the next one's, too
    Database(pooled).upgrade()
    assert execute(postgres.url(str(Database(url).url.database)), TABLES) == [("public",)]
    left = execute(pooled, "SHOW lock_timeout")
    assert left == [("0",)], "nor do we leave anything"


def test_the_environment_holds_and_the_url_before_it(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    url = postgres.new()
    execute(url, "CREATE SCHEMA risk", "CREATE SCHEMA other")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=risk --statement-timeout=17s")
    monkeypatch.setenv("PGAPPNAME", "scores")
    done = run("ledger", "upgrade", ledger=url)
    assert done.returncode == 0, done.stderr
    assert execute(url, TABLES) == [("risk",)]
    assert shown(url) == ["risk", "17s", "2s", "scores"]
    asked = "?options=-csearch_path%3Dother&application_name=mine&connect_timeout=11"
    assert shown(url + asked) == ["other", "0", "2s", "mine"]
    monkeypatch.delenv("PGAPPNAME")
    assert shown(url)[-1] == "peerloan"


def shown(url: str) -> list[str]:
    """The settings of a ledger's session."""
    names = "search_path", "statement_timeout", "lock_timeout", "application_name"
    with Database(url).reading() as connection:
        return [str(connection.exec_driver_sql(f"SHOW {each}").scalar()) for each in names]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("search_path=risk", r"search_path: .* no such option; .*\?options=-csearch_path%3Drisk"),
        ("options=-clock_timeout%3D9s", "needs lock_timeout to be 2s and sets it itself"),
        ("options=-cextra-float-digits%3D0", "needs extra_float_digits to be 1 and sets it itself"),
        ("options=-B%2099", "expected -cNAME=VALUE, given '-B'"),
        ("options=-csearch_path", "expected -cNAME=VALUE"),
        ("options=-cx%3D1&options=-cy%3D2", "options: expected once in the URL, given 2 times"),
        ("prepare_threshold=0", "prepare_threshold: .* no such option"),
    ],
)
def test_what_can_not_be_added_is_refused_before_a_connection(query: str, why: str) -> None:
    with pytest.raises(LedgerError, match=why):
        Database(f"postgresql://nobody.invalid/ledger?{query}")


def test_options_of_sqlite_are_refused() -> None:
    with pytest.raises(LedgerError, match="no options in SQLite's URL, given timeout"):
        Database("sqlite:///ledger.db?timeout=30")


def test_a_url_of_libpq_s_own_kind_is_taken(postgres: Postgres) -> None:
    url = postgres.new().replace("postgresql+psycopg", "postgres")
    assert Database(url).upgrade()
    two = url.replace("@", "@127.0.0.1:1,")
    Database(two).check()
    assert read_url("postgres://a:p%40:1@h1,h2:6/db?sslmode=prefer").query == {
        "host": "h1,h2",
        "port": ",6",
        "sslmode": "prefer",
    }
    commas = read_url("postgresql://a:p,/,q@host:6/db?password=r%2Fs")
    assert (commas.host, commas.port, commas.database) == ("host", 6, "db")
    assert (commas.password, str(commas)) == ("r/s", "postgresql://a:***@host:6/db")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://one/db", None),
        ("postgresql://one,two/db", "read-write"),
        ("postgresql:///db?host=one&host=two", "read-write"),
        ("postgresql://one,two/db?target_session_attrs=any", None),
    ],
)
def test_of_several_servers_one_that_takes_changes_is_asked_for(
    url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "three,four")
    assert connection_options(read_url(url)).get("target_session_attrs") == expected
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert "target_session_attrs" not in connection_options(read_url(url))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_.]{0,9}", fullmatch=True),
        st.text(st.characters(exclude_categories=("Cs", "Cc"))),
        max_size=4,
    ),
    st.sampled_from(["-c ", "-c", "--"]),
)
def test_settings_are_read_as_they_were_written(settings: dict[str, str], switch: str) -> None:
    def quoted(value: str) -> str:
        return "".join(f"\\{each}" if each.isspace() or each == "\\" else each for each in value)

    options = " ".join(f"{switch}{name}={quoted(value)}" for name, value in settings.items())
    assert parse_settings(options) == settings
