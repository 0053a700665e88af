"""Send requests to a service with tritonclient, and print the decoded responses as JSON.

The argument is the address. Standard input has the model's name, columns of loans, and headers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

OUTPUTS = ("probability", "late", "band", "reasons", "id")


def arrays(columns: dict[str, list[Any]], metadata: dict[str, Any]) -> dict[str, Any]:
    """Convert columns to arrays, by the model's metadata only."""
    result = {}
    for tensor in metadata["inputs"]:
        values = columns[tensor["name"]]
        if tensor["datatype"] == "BYTES":
            # The client would write None as a text.
            array = np.array(["" if value is None else value for value in values], dtype=np.object_)
        else:
            array = np.array(values, {"FP64": np.float64, "INT64": np.int64}[tensor["datatype"]])
        result[tensor["name"]] = array.reshape(-1, 1)
    return result


def inputs(client: Any, columns: dict[str, Any], datatypes: dict[str, str], **options: Any) -> Any:
    """Convert arrays to a client's inputs."""
    tensors = []
    for name, array in columns.items():
        tensor = client.InferInput(name, list(array.shape), datatypes[name])
        tensor.set_data_from_numpy(array, **options)
        tensors.append(tensor)
    return tensors


def plain(result: Any) -> dict[str, Any]:
    """The outputs of a result, in the form of the REST API."""
    outputs = {}
    for name in OUTPUTS:
        array = result.as_numpy(name)
        if array is None:
            continue
        assert array.shape[1:] == (1,), array.shape
        values = [v.decode() if isinstance(v, bytes) else v for v in array[:, 0].tolist()]
        outputs[name] = [json.loads(v) for v in values] if name == "reasons" else values
    return outputs


def refused(call: Any) -> list[str | None]:
    """The status and the message of an error."""
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["accepted", None]


async def asynchronous(
    url: str, model: str, columns: Any, datatypes: Any, head: Callable[[], dict[str, str]]
) -> dict[str, Any]:
    """Send a request with the client for asyncio."""
    async with triton_aio.InferenceServerClient(url) as client:
        assert await client.is_model_ready(model, headers=head())
        asked = inputs(triton_aio, columns, datatypes)
        return plain(await client.infer(model, asked, headers=head()))


def main() -> None:
    """Send every kind of request."""
    case = json.load(sys.stdin)
    model = case["model"]
    url = sys.argv[1].removeprefix("http://")
    client = triton.InferenceServerClient(url)

    def head() -> dict[str, str]:
        # The client changes the dictionary of headers.
        return dict(case["headers"])

    def infer(asked: Any, of: str = model, **options: Any) -> Any:
        return client.infer(of, asked, headers=head(), **options)

    metadata = client.get_model_metadata(model, headers=head())
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    columns = arrays(case["columns"], metadata)
    usual = inputs(triton, columns, datatypes)
    as_json = inputs(triton, columns, datatypes, binary_data=False)
    mixed = [*usual[: len(usual) // 2], *as_json[len(usual) // 2 :]]
    narrow = arrays(case["columns"], metadata)
    narrowed = dict(datatypes)
    for name, datatype in datatypes.items():
        if datatype == "INT64":
            narrow[name], narrowed[name] = narrow[name].astype(np.int16), "INT16"
    asked = [triton.InferRequestedOutput(name, binary_data=False) for name in OUTPUTS]
    half = [
        triton.InferRequestedOutput("late", binary_data=False),
        triton.InferRequestedOutput("probability"),
    ]
    result = infer(usual, request_id="mine")
    answered = {
        k: v for k, v in result.get_response().items() if k not in ("outputs", "parameters")
    }
    version = case["version"]
    wrong = dict(columns)
    wrong[case["number"]] = columns[case["number"]] * 0 - 1
    answers = {
        "defaults": plain(result),
        "json in, binary out": plain(infer(as_json)),
        "binary in, json out": plain(infer(usual, outputs=asked)),
        "json both ways": plain(infer(as_json, outputs=asked)),
        "mixed": plain(infer(mixed)),
        "narrow integers": plain(infer(inputs(triton, narrow, narrowed))),
        "async_infer": plain(client.async_infer(model, usual, headers=head()).get_result()),
        "asyncio": asyncio.run(asynchronous(url, model, columns, datatypes, head)),
        "version": plain(infer(usual, model_version=version)),
        "two outputs": plain(infer(usual, outputs=half)),
    }
    for encoding in ("gzip", "deflate"):
        answers[encoding] = plain(
            infer(
                usual,
                request_compression_algorithm=encoding,
                response_compression_algorithm=encoding,
            )
        )
    facts = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready(model, headers=head()),
        "version ready": client.is_model_ready(model, version, headers=head()),
        "other ready": client.is_model_ready("other", headers=head()),
        "server": client.get_server_metadata(headers=head()),
        "metadata": metadata,
        "version's metadata": client.get_model_metadata(model, version, headers=head()),
        "head": answered,
        "wrong value": refused(lambda: infer(inputs(triton, wrong, datatypes))),
        "wrong model": refused(lambda: infer(usual, "other")),
        "wrong version": refused(lambda: client.get_model_metadata(model, "7", headers=head())),
        "wrong output": refused(lambda: infer(usual, outputs=[triton.InferRequestedOutput("x")])),
        "lacking": refused(lambda: infer(usual[1:])),
    }
    print(json.dumps({"answers": answers, "facts": facts}))


main()
