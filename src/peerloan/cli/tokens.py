"""Commands over the API tokens: new, list, revoke."""

from __future__ import annotations

import click

from peerloan.cli.console import JSON, note, print_json, print_table
from peerloan.service.tokens import Tokens
from peerloan.settings import read_settings


@click.group()
def token() -> None:
    """Who may call the service."""


def _tokens() -> Tokens:
    return Tokens(read_settings().tokens)


@token.command()
@click.argument("name")
@click.option("--operator", is_flag=True, help="It may also change which model serves.")
def new(name: str, operator: bool) -> None:
    """Make a token and print it, once; services know it within five seconds."""
    made = _tokens().new(name, operator)
    click.echo(made)
    note(f"the token of {name}: keep it safe, it is not shown again")


@token.command("list")
@JSON
def list_tokens(as_json: bool) -> None:
    """The callers that have a token."""
    rows = [
        {"name": each.name, "operator": each.operator, "created": each.created}
        for each in _tokens().read()
    ]
    if as_json:
        print_json(rows)
    elif rows:
        cells = [
            (str(row["name"]), "operator" if row["operator"] else "", str(row["created"]))
            for row in rows
        ]
        print_table(("name", "", "created"), cells)
    else:
        note("no tokens; make one with: peerloan token new NAME")


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Take a caller's token back; services refuse it within five seconds."""
    _tokens().revoke(name)
    note(f"revoked the token of {name}")
