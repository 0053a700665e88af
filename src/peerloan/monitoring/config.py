"""The monitoring config, a TOML file: limits of rules, receivers of events, response to drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from peerloan.formatting import has_control
from peerloan.monitoring.alerts.rules import Rules
from peerloan.regular_files import read_regular_file
from peerloan.settings import MAX_SETTINGS_BYTES, SettingsError

OnDrift = Literal["notify", "recalibrate", "retrain"]
# Shorter secrets could be guessed.
_MIN_SECRET_BYTES = 24


class MonitoringConfigError(SettingsError):
    """A monitoring config can't be used; the message gives the reason."""


class Webhook(Struct, frozen=True, forbid_unknown_fields=True):
    """The address of a webhook, and the file with the secret that signs its events."""

    # No user name or password is allowed: the signature authenticates the sender.
    url: Annotated[str, Meta(pattern="^https?://[^/@?#]+([/?#]|$)")]
    secret_file: str

    def secret(self) -> bytes:
        """Read the secret. Raises MonitoringConfigError."""
        try:
            secret = read_regular_file(Path(self.secret_file), MAX_SETTINGS_BYTES).strip()
        except OSError as error:
            raise MonitoringConfigError(
                f"{self.secret_file}: can't be read: {error.strerror}"
            ) from None
        if len(secret) < _MIN_SECRET_BYTES:
            raise MonitoringConfigError(
                f"{self.secret_file}: expected a secret of at least {_MIN_SECRET_BYTES} bytes, "
                f"given {len(secret)}"
            )
        return secret


class Channels(Struct, frozen=True, forbid_unknown_fields=True):
    """The receivers of events: the log, a webhook, and a command.

    The command gets an event on its standard input.
    """

    log: bool = True
    webhook: Webhook | None = None
    command: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None

    @property
    def channels(self) -> list[str]:
        """The names of the channels that are set."""
        channels = {"log": self.log, "webhook": self.webhook, "command": self.command}
        return [name for name, is_set in channels.items() if is_set]


class MonitoringConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of monitoring.

    - `window_days`: the length of a window. Realised figures use the newest days of which at least
      the share `mature` of the outcomes is known, at most four times as many days.
    - `on_drift` (`answer` in the file): the response to an alert of level "act". `book` is an
      additional training book.
    - `outcomes_from`: training uses only outcomes that these callers or the command line reported;
      None: those of any caller. `decisions_from`: the same for decisions.
    - `promote`: a better challenger is promoted without a person. `promote_confirmed` is the
      operator's confirmation of that.
    """

    window_days: Annotated[int, Meta(ge=1, le=366)] = 7
    mature: Annotated[float, Meta(gt=0, le=1)] = 0.8
    limits: Rules = Rules()
    tell: Channels = Channels()
    on_drift: OnDrift = msgspec.field(default="notify", name="answer")
    book: str | None = None
    promote: bool = False
    outcomes_from: tuple[str, ...] | None = None
    decisions_from: tuple[str, ...] | None = None
    promote_confirmed: Annotated[str, Meta(max_length=500)] = ""


def read_config(path: Path | None) -> MonitoringConfig:
    """Read a config from a file. Without a file, return the defaults.

    Raises MonitoringConfigError, also if the webhook's secret can't be used.
    """
    if path is None:
        return MonitoringConfig()
    try:
        config = msgspec.toml.decode(
            read_regular_file(path, MAX_SETTINGS_BYTES), type=MonitoringConfig
        )
    except OSError as error:
        raise MonitoringConfigError(f"{path}: can't be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise MonitoringConfigError(f"{path}: {_reword(str(error))}") from None
    if config.limits.psi_act <= config.limits.psi_watch:
        raise MonitoringConfigError(
            f"{path}: limits.psi_act: expected more than psi_watch ({config.limits.psi_watch}), "
            f"given {config.limits.psi_act}"
        )
    if config.book is not None and config.on_drift != "retrain":
        raise MonitoringConfigError(f'{path}: book: expected only with answer = "retrain"')
    _check_promotion(path, config)
    if config.tell.webhook is not None:
        config.tell.webhook.secret()
    return config


def _check_promotion(path: Path, config: MonitoringConfig) -> None:
    """Raise MonitoringConfigError if a promotion has no operator's confirmation."""
    if has_control(config.promote_confirmed):
        raise MonitoringConfigError(
            f"{path}: promote_confirmed: expected text without control characters"
        )
    # At least one letter or digit, because other characters may be invisible.
    has_word = any(character.isalnum() for character in config.promote_confirmed)
    lacking = [
        *(() if config.outcomes_from is not None else ('outcomes_from = ["CALLER"]',)),
        *(() if config.decisions_from is not None else ('decisions_from = ["CALLER"]',)),
        *(() if has_word else ('promote_confirmed = "NAME, DATE: WHY"',)),
    ]
    if config.promote and lacking:
        raise MonitoringConfigError(
            f"{path}: promote: with true, the outcomes that callers report can change the "
            f"champion; to allow this for the callers that you name, add {' and '.join(lacking)} "
            "above it; otherwise remove promote"
        )


def _reword(error: str) -> str:
    """Reword a decoder's error so that the key comes first."""
    what, _, where = error.partition(" - at `$.")
    what = what[:1].lower() + what[1:]
    return f"{where.rstrip('`')}: {what}" if where else what
