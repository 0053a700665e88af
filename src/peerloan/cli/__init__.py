"""`peerloan …`: the command line, thin over the rooms."""

from peerloan.cli.main import main

__all__ = ["main"]
