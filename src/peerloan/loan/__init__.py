"""Loan definitions, and everything derived from one: validation, columns, JSON Schema."""

from peerloan.loan.columns import Column, Loans, TextColumn, column_values, distinct
from peerloan.loan.compatibility import breaking_changes, read_alike
from peerloan.loan.decoding import CheckedLoans, Decoder, StoredLoanDecoder, unusual_values
from peerloan.loan.definition import Definition, DefinitionError, Field, Kind, Label, Roles, Value
from peerloan.loan.json_schema import json_schema
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
    "LoanWarning",
    "Loans",
    "Problem",
    "ReasonTemplates",
    "Roles",
    "StoredLoanDecoder",
    "Suggestions",
    "TextColumn",
    "Value",
    "breaking_changes",
    "column_values",
    "default_definition",
    "distinct",
    "json_schema",
    "parse_definition",
    "read_alike",
    "read_definition",
    "unusual_values",
]
