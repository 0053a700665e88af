"""`peerloan sample`: write a synthetic book."""

from __future__ import annotations

from pathlib import Path

import click

from peerloan.book import open_writer
from peerloan.cli.console import (
    OUT,
    OVERWRITE,
    progress,
)
from peerloan.formatting import plural
from peerloan.sample_data import SCENARIOS, SCHEMA, batches


@click.command()
@click.argument("out", type=OUT)
@click.option("--loans", default=20_000, show_default=True, help="Number of loans.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same book.")
@click.option(
    "--scenario",
    type=click.Choice(SCENARIOS),
    default="calm",
    show_default=True,
    help="Drift to simulate, for trying out monitoring; calm has none.",
)
@OVERWRITE
def sample(out: Path, loans: int, seed: int, scenario: str, overwrite: bool) -> None:
    """Write a synthetic book to OUT (.csv, .csv.gz or .parquet)."""
    if loans < 1 or seed < 0:
        raise click.BadParameter("expected --loans of at least 1 and --seed of at least 0")
    with open_writer(out, SCHEMA, overwrite=overwrite) as writer, progress() as show:
        written = 0
        for batch in batches(loans, seed, scenario):
            writer.write(batch)
            written += batch.num_rows
            show(f"{plural(loans, 'loan')} to {out}", written / loans)
