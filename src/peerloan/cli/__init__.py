"""The command line, `peerloan …`. Each command parses its options and calls another package."""

from peerloan.cli.main import main

__all__ = ["main"]
