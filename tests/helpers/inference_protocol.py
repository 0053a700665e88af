"""Requests of the Open Inference Protocol."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

INFER = "/v2/models/late-payments/infer"
LENGTH = "Inference-Header-Content-Length"


def tensor(name: str, values: list[Any], **more: Any) -> dict[str, Any]:
    """A column as a tensor in JSON; `more` are further keys of the tensor."""
    present = [value for value in values if value is not None]
    kind = "BYTES" if any(isinstance(value, str) for value in present) else "FP64"
    kind = "INT64" if present and all(type(value) is int for value in present) else kind
    return {"name": name, "shape": [len(values), 1], "datatype": kind, "data": values, **more}


def tensors(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Columns as tensors in JSON."""
    return [tensor(name, values) for name, values in columns.items()]


def in_binary(columns: dict[str, list[Any]], **more: Any) -> tuple[bytes, int]:
    """A request with tensors in binary form, and the length of its JSON part."""
    inputs = []
    raw = b""
    for column in tensors(columns):
        values = column.pop("data")
        if column["datatype"] == "BYTES":
            texts = [(value or "").encode() for value in values]
            part = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        else:
            kind = {"FP64": np.float64, "INT64": np.int64}[column["datatype"]]
            part = np.array(values, kind).tobytes()
        inputs.append(column | {"parameters": {"binary_data_size": len(part)}})
        raw += part
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + raw, len(head)
