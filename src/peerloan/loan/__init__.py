"""Loan definitions, and everything derived from one: validation, columns, JSON Schema."""

from peerloan.loan.columns import Column, Loans, TextColumn, column_values, distinct
from peerloan.loan.compatibility import breaking_changes, read_alike
from peerloan.loan.decoding import CheckedLoans, Decoder, StoredLoanDecoder, unusual_values
from peerloan.loan.definition import Definition, DefinitionError, Field, Kind, Label, Roles, Value
from peerloan.loan.json_schema import json_schema
from peerloan.loan.lenient import (
    LenientLoan,
    Understood,
    check_leniently,
    find_name,
    read_leniently,
)
from peerloan.loan.reason_templates import ReasonTemplates
from peerloan.loan.suggestions import MAX_COMPARISONS, MAX_RUN_COMPARISONS, Suggestions
from peerloan.loan.toml import default_definition, parse_definition, read_definition
from peerloan.loan.validation import Checked, Checks, Problem
from peerloan.loan.warning import LoanWarning

__all__ = [
    "MAX_COMPARISONS",
    "MAX_RUN_COMPARISONS",
    "Checked",
    "CheckedLoans",
    "Checks",
    "Column",
    "Decoder",
    "Definition",
    "DefinitionError",
    "Field",
    "Kind",
    "Label",
    "LenientLoan",
    "LoanWarning",
    "Loans",
    "Problem",
    "ReasonTemplates",
    "Roles",
    "StoredLoanDecoder",
    "Suggestions",
    "TextColumn",
    "Understood",
    "Value",
    "breaking_changes",
    "check_leniently",
    "column_values",
    "default_definition",
    "distinct",
    "find_name",
    "json_schema",
    "parse_definition",
    "read_alike",
    "read_definition",
    "read_leniently",
    "unusual_values",
]
