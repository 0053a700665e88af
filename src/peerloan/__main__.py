"""`python -m peerloan`."""

from peerloan.cli import main

main()
