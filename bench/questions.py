"""Times of the API's queries over a ledger of many decisions."""

from __future__ import annotations

import base64
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

from peerloan import uuid7
from peerloan.clock import now_ms
from peerloan.database import Database
from peerloan.ledger import Chain, Entry, Record, Seal, Version
from peerloan.loan import default_definition
from peerloan.model import BANDS
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.uuid7 import IdGenerator
from peerloan.web import create_app

MONTHS = 24
_AT_ONCE = 5_000
_DAY_MS = 86_400_000
_ASKED = 20
_REASONS = json.dumps(
    [
        {
            "feature": name,
            "value": 0.2039,
            "contribution": 0.4375,
            "sentence": f"The {name} of this loan is often seen among loans that were late.",
        }
        for name in ("int_rate", "annual_inc", "emp_length")
    ]
)
_LOAN = {field.name: field.default for field in default_definition().fields}
# The bands of ten decisions, in the shares that PeerLoan's loans have.
_BANDS = (0, 0, 0, 1, 1, 1, 1, 2, 2, 3)
# One in this many decisions is by a version that decides rarely, over the whole time.
_RARE = 20_000
RARE = Version("rare-000000000000", "f" * 64, 0.02)


def table(name: str, url: str, store: Store, root: Path, count: int, console: Console) -> Table:
    """Generate decisions and time the queries."""
    database = Database(url)
    began = time.perf_counter()
    usual = [Version(f"v{i}-00000000000{i}", str(i) * 64, 0.02) for i in range(4)]
    made = _generate(database, root, usual, count, console, name)
    taken = time.perf_counter() - began
    settings = Settings(store.root, root / "tokens", url)
    client = create_app(settings, on_loopback=True).test_client()
    found = Table(
        f"{name}: {count:,} decisions, generated at {count / taken:,.0f}/s", title_justify="left"
    )
    for title in ("median ms", "worst ms", "found"):
        found.add_column(title, justify="right")
    for what, addresses in _questions(made, usual, count).items():
        waits, rows = [], 0
        for address in itertools.islice(addresses, _ASKED):
            asked = time.perf_counter()
            answer = client.get(address)
            waits.append(time.perf_counter() - asked)
            if answer.status_code != 200:
                raise SystemExit(f"{address}: {answer.status_code} {answer.text}")
            rows = len(answer.get_json().get("predictions", "1"))
        found.add_row(what, f"{median(waits) * 1000:.1f}", f"{max(waits) * 1000:.1f}", f"{rows:,}")
    return found


class _Past(IdGenerator):
    """Ids of a time in the past."""

    def at(self, milliseconds: int) -> bytes:
        """Return the next id, with the given time."""
        return milliseconds.to_bytes(6) + self.new()[6:]


def _generate(
    database: Database, root: Path, usual: list[Version], count: int, console: Console, name: str
) -> list[bytes]:
    """Add decisions, evenly over the months. Return some of their ids, the oldest first."""
    if not database.is_sqlite:
        _make_partitions(database)
    chain = Chain(database, Seal(root / f"seal-{name}"))
    end = now_ms() - 60_000
    begin = end - MONTHS * 30 * _DAY_MS
    past, some = _Past(), []
    inputs = json.dumps(_LOAN)
    batches = range(0, count, _AT_ONCE)
    label = f"{name}: {count:,} decisions"
    for first in track(batches, label, console=console, transient=True):
        records = []
        for i in range(first, min(first + _AT_ONCE, count)):
            made = past.at(begin + (end - begin) * i // count)
            version = RARE if i % _RARE == 0 else usual[i * 2 * len(usual) // count % len(usual)]
            loan_id = "busy" if i % 10_000 == 1 else f"loan-{i * 7919 % (count // 2 + 1)}"
            values = (-3.9, 0.0198, i % 10 > 6, _BANDS[i % 10], _REASONS, None)
            records.append(
                Record(made, version, "api", "bank", f"{i:032x}", None, loan_id, inputs, *values)
            )
            if i % (count // 200 or 1) == 0:
                some.append(made)
        chain.append([Entry(records)])
    chain.close()
    with database.reading() as connection:
        if not database.is_sqlite:  # as autovacuum would, some minutes later
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
    return some


def _make_partitions(database: Database) -> None:
    """Make the partitions of the months before this one."""
    now = datetime.now(UTC)
    months = now.year * 12 + now.month - 1

    def bound(number: int) -> tuple[str, datetime]:
        first = datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
        return str(uuid7.first_at(int(first.timestamp() * 1000))), first

    with database.writing() as connection:
        for number in range(months - MONTHS - 1, months):
            (low, first), (high, _) = bound(number), bound(number + 1)
            connection.exec_driver_sql(
                f"CREATE TABLE IF NOT EXISTS decisions_{first:%Y_%m} PARTITION OF decisions "
                f"FOR VALUES FROM ('{low}') TO ('{high}')"
            )


def _questions(made: list[bytes], usual: list[Version], count: int) -> dict[str, Iterator[str]]:
    """Return the queries, each for several loans, days, versions or bands."""
    chance = random.Random(1)

    def any_loan() -> str:
        return f"loan_id=loan-{chance.randrange(count // 2)}"

    def day() -> str:
        at = uuid7.milliseconds(chance.choice(made)) / 1000
        return f"since={datetime.fromtimestamp(at, UTC):%Y-%m-%d}"

    def until() -> str:
        at = uuid7.milliseconds(chance.choice(made[len(made) // 4 :])) / 1000
        return f"until={datetime.fromtimestamp(at, UTC):%Y-%m-%d}"

    def version() -> str:
        return f"version={chance.choice(usual).version}"

    def band() -> str:
        return f"band={chance.choice(BANDS)}"

    def deep() -> str:
        """Return the cursor of a page with most decisions after it."""
        at = chance.choice(made[: len(made) // 2])
        return "cursor=" + base64.urlsafe_b64encode(at).decode().rstrip("=")

    def listing(*parts: Callable[[], str]) -> Iterator[str]:
        while True:
            yield "/v1/predictions?" + "&".join(part() for part in parts)

    def one() -> Iterator[str]:
        while True:
            yield f"/v1/predictions/{uuid7.text(chance.choice(made))}"

    asked: dict[str, Iterator[str]] = {"one decision, by its id": one()}
    by: dict[str, list[Callable[[], str]]] = {
        "the newest": [],
        "by loan": [any_loan],
        "by a loan with many decisions": [lambda: "loan_id=busy"],
        "since a day": [day],
        "until a day": [until],
        "by version": [version],
        "by band": [band],
        "by version and band": [version, band],
        "by version and time": [version, day, until],
        "by a rare version": [lambda: f"version={RARE.version}"],
        "by a rare version and band": [lambda: f"version={RARE.version}", band],
        "by an unknown loan": [lambda: "loan_id=nobody"],
    }
    for name, parts in by.items():
        asked[f"{name}: the first page"] = listing(*parts)
        asked[f"{name}: a deep cursor"] = listing(*parts, deep)
        asked[f"{name}: 1,000 at once"] = listing(*parts, lambda: "limit=1000")
    return asked
