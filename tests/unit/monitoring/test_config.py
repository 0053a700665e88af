"""The file that says how a model is watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from peerloan.monitoring.alerts.rules import Rules
from peerloan.monitoring.config import (
    Channels,
    MonitoringConfig,
    MonitoringConfigError,
    Webhook,
    read_config,
)

ALL_KEYS = """
window_days = 14
mature = 0.9
answer = "retrain"
book = "book.csv"
promote = true
outcomes_from = ["servicing"]
decisions_from = ["shop"]
promote_confirmed = "Anna Weber, 30 November 2026: servicing alone tells outcomes"
[limits]
psi_watch = 0.2
psi_act = 0.3
new_levels = 0.02
ratio_low = 0.7
ratio_high = 1.4
volume_drop = 0.4
[tell]
log = false
command = ["page", "me"]
[tell.webhook]
url = "https://example.org/hook"
secret_file = "secret"
"""


NAMED = "promote = true\noutcomes_from = []\ndecisions_from = []\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text("a secret that nobody guesses\n", "utf-8")
    Path("short").write_text("secret\n", "utf-8")
    return tmp_path


def test_without_a_file_the_defaults_apply_and_events_go_to_the_log() -> None:
    config = read_config(None)
    assert config == MonitoringConfig()
    assert (config.limits.psi_watch, config.limits.psi_act) == (0.10, 0.25)
    assert (config.limits.ratio_low, config.limits.ratio_high) == (0.8, 1.25)
    assert (config.on_drift, config.promote, config.tell.channels) == ("notify", False, ["log"])


def test_all_keys_can_be_set(folder: Path) -> None:
    path = folder / "rules.toml"
    path.write_text(ALL_KEYS, "utf-8")
    config = read_config(path)
    webhook = Webhook("https://example.org/hook", "secret")
    assert config == MonitoringConfig(
        14,
        0.9,
        Rules(0.2, 0.3, 0.02, 0.7, 1.4, 0.4),
        Channels(False, webhook, ("page", "me")),
        "retrain",
        "book.csv",
        True,
        ("servicing",),
        ("shop",),
        "Anna Weber, 30 November 2026: servicing alone tells outcomes",
    )
    assert config.tell.channels == ["webhook", "command"]
    assert webhook.secret() == b"a secret that nobody guesses"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("window_days = 0", "window_days: expected `int` >= 1"),
        ("windows = 1", "object contains unknown field `windows`"),
        ("[limits]\npsi_act = 0.05", "limits.psi_act: expected more than psi_watch (0.1), given 0"),
        ("[limits]\npsi_act = 'a'", "limits.psi_act: expected `float`, got `str`"),
        ("[limits]\nratio_low = 1.2", "limits.ratio_low: expected `float` < 1.0"),
        ('answer = "nothing"', "answer: invalid enum value 'nothing'"),
        ('book = "a.csv"', 'book: expected only with answer = "retrain"'),
        (
            "promote = true",
            '["CALLER"] and decisions_from = ["CALLER"] and promote_confirmed = "NAME',
        ),
        ("promote = true", "outcomes that callers report can change the champion"),
        (NAMED, 'add promote_confirmed = "NAME, DATE: WHY" above'),
        (
            "promote = true\ndecisions_from = []\npromote_confirmed = 'I'",
            'add outcomes_from = ["CALLER"] above',
        ),
        (
            "promote = true\noutcomes_from = []\npromote_confirmed = 'I'",
            'add decisions_from = ["CALLER"] above',
        ),
        *(
            (f"{NAMED}promote_confirmed = {nothing}", 'add promote_confirmed = "NAME')
            for nothing in ("' '", r'"\u200b"', r'"\u00ad -"', "'...'")
        ),
        ('promote_confirmed = "a\\tb"', "promote_confirmed: expected text without control"),
        ("[tell]\ncommand = []", "tell.command: expected `array` of length >= 1"),
        ("[tell.webhook]\nurl = 'https://a'\nsecret_file = 'no'", "no: can't be read: No such"),
        (
            "[tell.webhook]\nurl = 'https://a'\nsecret_file = 'short'",
            "short: expected a secret of at least 24 bytes, given 6",
        ),
        ("[tell.webhook]\nurl = 'ftp://a'\nsecret_file = 'secret'", "tell.webhook.url: expected"),
        ("[tell.webhook]\nurl = 'http://a@b'\nsecret_file = 'secret'", "tell.webhook.url: exp"),
        ("a b", "rules.toml: "),
    ],
)
def test_an_invalid_config_is_refused_with_the_key(folder: Path, text: str, message: str) -> None:
    (folder / "rules.toml").write_text(text, "utf-8")
    with pytest.raises(MonitoringConfigError) as error:
        read_config(folder / "rules.toml")
    assert message in str(error.value)


def test_limits_with_hysteresis_are_a_fifth_closer_to_no_drift() -> None:
    limits = Rules().with_hysteresis()
    assert (limits.psi_watch, limits.psi_act) == pytest.approx((0.08, 0.20))
    assert (limits.ratio_low, limits.ratio_high) == pytest.approx((0.84, 1.2))
    assert (limits.new_levels, limits.volume_drop) == pytest.approx((0.008, 0.4))
