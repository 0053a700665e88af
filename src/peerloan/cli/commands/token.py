"""`peerloan token`: make, list and revoke API tokens."""

from __future__ import annotations

from typing import Any

import click

from peerloan.cli.console import JSON, note, print_json, print_table
from peerloan.settings import read_settings
from peerloan.web.auth.tokens import SCOPES, Scope, Tokens


@click.group()
def token() -> None:
    """Manage who may call the service."""


def _tokens() -> Tokens:
    settings = read_settings()
    return Tokens(settings.tokens, settings.tokens_marker)


def _scopes(
    context: click.Context,  # noqa: ARG001  as click calls it
    parameter: click.Parameter,  # noqa: ARG001
    values: tuple[str, ...],
) -> tuple[Scope, ...]:
    """Parse the scopes of all --scope options, each of which may name several."""
    names = [name.strip() for text in values for name in text.split(",")]
    if unknown := [name for name in names if name not in SCOPES]:
        expected = f"expected {', '.join(SCOPES)}, one or more"
        raise click.BadParameter(f"{expected}, given {unknown[0]!r}")
    return tuple(scope for scope in SCOPES if scope in names)


@token.command()
@click.argument("name")
@click.option("--operator", is_flag=True, help="The token may also change which model serves.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    callback=_scopes,
    metavar="SCOPE",
    help=f"What the token may do: {', '.join(SCOPES)}. Repeatable, or separated by commas. "
    "Default: all of these.",
)
def new(name: str, operator: bool, scopes: tuple[Scope, ...]) -> None:
    """Make a token and print it once.

    NAME is the caller's. Services accept the token within five seconds.
    """
    if operator and scopes:
        raise click.UsageError(
            "an operator's token has every scope; use --operator or --scope, not both"
        )
    made = _tokens().new(name, operator, scopes)
    click.echo(made)
    note(f"made a token for {name}; keep it safe, it is not shown again")


@token.command("list")
@JSON
def list_tokens(as_json: bool) -> None:
    """List the callers with a token, and their scopes."""
    rows: list[dict[str, Any]] = [
        {
            "name": each.name,
            "operator": each.operator,
            "scopes": [scope for scope in SCOPES if scope in each.scopes],
            "created": each.created,
        }
        for each in _tokens().read()
    ]
    if as_json:
        print_json(rows)
    elif rows:
        cells = [
            (
                row["name"],
                "operator" if row["operator"] else ", ".join(row["scopes"]),
                row["created"],
            )
            for row in rows
        ]
        print_table(("name", "scopes", "created"), cells)
    else:
        note("no tokens; make one with: peerloan token new NAME")


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a caller's token.

    Services refuse it within five seconds.
    """
    _tokens().revoke(name)
    note(f"revoked the token of {name}")
