"""A request's line in the log."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest

from helpers.apps import create_app
from peerloan.settings import Settings

SECOND = 1_767_225_600  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [(0, "000"), (5_999_999, "005"), (50_000_000, "050"), (999_999_999, "999")],
)
def test_a_line_has_its_time_in_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nanoseconds: int, shown: str
) -> None:
    log = io.BytesIO()
    app = create_app(Settings(tmp_path / "store", tmp_path / "tokens"), log)
    client = app.test_client()
    with monkeypatch.context() as clock:
        clock.setattr(time, "time_ns", lambda: SECOND * 10**9 + nanoseconds)
        client.get("/healthz")
    deadline = time.monotonic() + 30
    while not log.getvalue().endswith(b"\n") and time.monotonic() < deadline:
        time.sleep(0.02)
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert (line["path"], line["time"]) == ("/healthz", f"2026-01-01T00:00:00.{shown}+00:00")
