"""Detect bodies in the format of another model server or of pandas, and suggest what to send."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from peerloan.loan import Problem
from peerloan.loan.validation import show_name
from peerloan.web.http.problems import RequestError

_EXPECTED = "a loan (an object), a list of loans, or columns (an object of lists)"
_FORMATS = {
    "instances": "the format of KServe version 1, TensorFlow Serving and MLflow",
    "signature_name": "the format of TensorFlow Serving and MLflow",
    "dataframe_split": "MLflow's format of a pandas table split in columns and data",
    "dataframe_records": "MLflow's format of pandas records",
    "inputs": "MLflow's format",
}
_SPLIT_NAMES = {"columns", "data"}
_PANDAS = 'in pandas, df.to_json(orient="records") writes a list of loans'


def refuse_other_format(body: Mapping[str, Any], fields: Collection[str], model: str) -> None:
    """Raise RequestError 422 if a body has a known format that is neither a loan nor columns.

    `fields` are the names that a loan may have. An object with such a name is a loan or columns,
    except if all of its values are objects, as pandas writes columns by default.
    """
    if not body:
        return
    names = [name for name in body if name in fields]
    if names:
        if len(body) == len(names) and all(isinstance(body[name], dict) for name in names):
            raise _refusal(names[0], "pandas' columns with an index", _PANDAS)
        return
    if name := next((name for name in _FORMATS if name in body), None):
        _refuse_named_format(name, body[name], model)
    if body.keys() >= _SPLIT_NAMES:
        raise _refusal("columns", "pandas' format split in columns and data", _PANDAS)
    wrappers = [name for name, value in body.items() if _has_loans(value, fields)]
    if wrappers:
        name, as_list = wrappers[0], "send the values of all names as one list of loans"
        remedy = _unwrap(name, body[name]) if len(wrappers) == 1 else as_list
        raise _refusal(show_name(name), "loans under a name", remedy)


def _refuse_named_format(name: str, value: Any, model: str) -> None:
    if name == "inputs" and isinstance(value, list) and value and _is_tensor(value[0]):
        kind = "the Open Inference Protocol's format"
        raise _refusal(name, kind, f"send it to POST /v2/models/{model}/infer")
    is_split = isinstance(value, dict) and value.keys() >= _SPLIT_NAMES
    raise _refusal(name, _FORMATS[name], _PANDAS if is_split else _unwrap(name, value))


def _unwrap(name: str, value: Any) -> str:
    kind = "list" if isinstance(value, list) else "object"
    return f"send only the {kind} under {show_name(name)}, as the body"


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and "datatype" in value


def _has_loans(value: Any, fields: Collection[str]) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and any(name in fields for name in first)


def _refusal(name: str, kind: str, remedy: str) -> RequestError:
    detail = f"{name}: expected {_EXPECTED}, given {kind}; {remedy}"
    problem = Problem(None, name, f"{_EXPECTED} ({remedy})", kind)
    return RequestError(422, "Another Format", detail, [problem])
