"""Asks a running service through tritonclient; prints what it made of the answers, as JSON.

Called with the address; takes the model's name and columns of loans from standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

OUTPUTS = ("probability", "late", "band", "reasons", "id")


def arrays(columns: dict[str, list[Any]], metadata: dict[str, Any]) -> dict[str, Any]:
    """Columns as arrays, by nothing but what the model says of its inputs."""
    made = {}
    for tensor in metadata["inputs"]:
        values = columns[tensor["name"]]
        if tensor["datatype"] == "BYTES":
            # The client would write None as a text.
            array = np.array(["" if value is None else value for value in values], dtype=np.object_)
        else:
            array = np.array(values, {"FP64": np.float64, "INT64": np.int64}[tensor["datatype"]])
        made[tensor["name"]] = array.reshape(-1, 1)
    return made


def inputs(client: Any, made: dict[str, Any], datatypes: dict[str, str], **options: Any) -> Any:
    """Arrays as a client's inputs."""
    tensors = []
    for name, array in made.items():
        tensor = client.InferInput(name, list(array.shape), datatypes[name])
        tensor.set_data_from_numpy(array, **options)
        tensors.append(tensor)
    return tensors


def plain(result: Any) -> dict[str, Any]:
    """A result's outputs, as the answers of the REST API have them."""
    found = {}
    for name in OUTPUTS:
        array = result.as_numpy(name)
        if array is None:
            continue
        assert array.shape[1:] == (1,), array.shape
        values = [v.decode() if isinstance(v, bytes) else v for v in array[:, 0].tolist()]
        found[name] = [json.loads(v) for v in values] if name == "reasons" else values
    return found


def refused(call: Any) -> list[str | None]:
    """The status and the message of an error."""
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["accepted", None]


async def asynchronous(url: str, model: str, made: Any, datatypes: Any) -> dict[str, Any]:
    """The client for asyncio."""
    async with triton_aio.InferenceServerClient(url) as client:
        assert await client.is_model_ready(model)
        return plain(await client.infer(model, inputs(triton_aio, made, datatypes)))


def main() -> None:
    """Every way to ask."""
    given = json.load(sys.stdin)
    model = given["model"]
    url = sys.argv[1].removeprefix("http://")
    client = triton.InferenceServerClient(url)
    metadata = client.get_model_metadata(model)
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    made = arrays(given["columns"], metadata)
    usual = inputs(triton, made, datatypes)
    as_json = inputs(triton, made, datatypes, binary_data=False)
    mixed = [*usual[: len(usual) // 2], *as_json[len(usual) // 2 :]]
    narrow = arrays(given["columns"], metadata)
    narrowed = dict(datatypes)
    for name, datatype in datatypes.items():
        if datatype == "INT64":
            narrow[name], narrowed[name] = narrow[name].astype(np.int16), "INT16"
    asked = [triton.InferRequestedOutput(name, binary_data=False) for name in OUTPUTS]
    half = [
        triton.InferRequestedOutput("late", binary_data=False),
        triton.InferRequestedOutput("probability"),
    ]
    result = client.infer(model, usual, request_id="mine")
    head = {k: v for k, v in result.get_response().items() if k not in ("outputs", "parameters")}
    version = given["version"]
    wrong = dict(made)
    wrong[given["number"]] = made[given["number"]] * 0 - 1
    answers = {
        "defaults": plain(result),
        "json in, binary out": plain(client.infer(model, as_json)),
        "binary in, json out": plain(client.infer(model, usual, outputs=asked)),
        "json both ways": plain(client.infer(model, as_json, outputs=asked)),
        "mixed": plain(client.infer(model, mixed)),
        "narrow integers": plain(client.infer(model, inputs(triton, narrow, narrowed))),
        "async_infer": plain(client.async_infer(model, usual).get_result()),
        "asyncio": asyncio.run(asynchronous(url, model, made, datatypes)),
        "version": plain(client.infer(model, usual, model_version=version)),
        "two outputs": plain(client.infer(model, usual, outputs=half)),
    }
    for encoding in ("gzip", "deflate"):
        answers[encoding] = plain(
            client.infer(
                model,
                usual,
                request_compression_algorithm=encoding,
                response_compression_algorithm=encoding,
            )
        )
    facts = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(model),
        "version ready": client.is_model_ready(model, version),
        "other ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(),
        "metadata": metadata,
        "version's metadata": client.get_model_metadata(model, version),
        "head": head,
        "wrong value": refused(lambda: client.infer(model, inputs(triton, wrong, datatypes))),
        "wrong model": refused(lambda: client.infer("other", usual)),
        "wrong version": refused(lambda: client.get_model_metadata(model, "7")),
        "wrong output": refused(
            lambda: client.infer(model, usual, outputs=[triton.InferRequestedOutput("x")])
        ),
        "lacking": refused(lambda: client.infer(model, usual[1:])),
    }
    print(json.dumps({"answers": answers, "facts": facts}))


main()
