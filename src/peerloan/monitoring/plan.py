"""How a model is watched: the rules' limits, whom to tell, and what to answer; a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from peerloan.monitoring.rules import Rules
from peerloan.regular_files import read_regular_file
from peerloan.settings import MAX_SETTINGS_BYTES, SettingsError

Answer = Literal["notify", "recalibrate", "retrain"]
# A secret that can be guessed signs nothing.
_SECRET_BYTES = 24


class PlanError(SettingsError):
    """A file of rules that can't be used, and why."""


class Webhook(Struct, frozen=True, forbid_unknown_fields=True):
    """Where events are sent, and the file with the secret that signs them."""

    # Without a user in it: the signature tells the receiver who sends.
    url: Annotated[str, Meta(pattern="^https?://[^/@?#]+([/?#]|$)")]
    secret_file: str

    def secret(self) -> bytes:
        """The secret; raises PlanError."""
        try:
            secret = read_regular_file(Path(self.secret_file), MAX_SETTINGS_BYTES).strip()
        except OSError as error:
            raise PlanError(f"{self.secret_file}: can't be read: {error.strerror}") from None
        if len(secret) < _SECRET_BYTES:
            raise PlanError(
                f"{self.secret_file}: expected a secret of at least {_SECRET_BYTES} bytes, "
                f"given {len(secret)}"
            )
        return secret


class Tell(Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to tell of an event: the log, a webhook, a command that gets it as its input."""

    log: bool = True
    webhook: Webhook | None = None
    command: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None

    @property
    def channels(self) -> list[str]:
        """The names of those who are told."""
        told = {"log": self.log, "webhook": self.webhook, "command": self.command}
        return [name for name, is_set in told.items() if is_set]


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """What is set of watching.

    A window is the last `window_days` days; outcomes are those of the newest four times as many, of
    each of which at least the share `mature` is known. `answer` is what is done where a rule says
    "act"; `book` is trained on beside the outcomes; with `promote` a challenger that is better
    becomes champion without a person.
    """

    window_days: Annotated[int, Meta(ge=1, le=366)] = 7
    mature: Annotated[float, Meta(gt=0, le=1)] = 0.8
    limits: Rules = Rules()
    tell: Tell = Tell()
    answer: Answer = "notify"
    book: str | None = None
    promote: bool = False


def read_plan(path: Path | None) -> Plan:
    """The plan that a file holds; without one, the conventions, and the log alone is told.

    Raises PlanError, also if the webhook's secret can't be used.
    """
    if path is None:
        return Plan()
    try:
        plan = msgspec.toml.decode(read_regular_file(path, MAX_SETTINGS_BYTES), type=Plan)
    except OSError as error:
        raise PlanError(f"{path}: can't be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise PlanError(f"{path}: {_plainly(str(error))}") from None
    if plan.limits.psi_act <= plan.limits.psi_watch:
        raise PlanError(
            f"{path}: limits.psi_act: expected more than psi_watch, {plan.limits.psi_watch}, "
            f"given {plan.limits.psi_act}"
        )
    if plan.book is not None and plan.answer != "retrain":
        raise PlanError(f'{path}: book: expected only with answer = "retrain"')
    if plan.tell.webhook is not None:
        plan.tell.webhook.secret()
    return plan


def _plainly(error: str) -> str:
    """A decoder's words, the place first."""
    what, _, where = error.partition(" - at `$.")
    what = what[:1].lower() + what[1:]
    return f"{where.rstrip('`')}: {what}" if where else what
