"""Send requests to a service with KServe's REST client, and print the decoded responses as JSON.

The argument is the address. Standard input has the model's name, columns of loans, and headers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import InferResponse, RequestedOutput


def request(case: dict[str, Any], binary: bool, **more: Any) -> InferRequest:
    """Loans as the client's request; missing texts are empty."""
    inputs = []
    for name, values in case["columns"].items():
        if any(isinstance(value, str) for value in values):
            kind = "BYTES"
            array: Any = np.array(
                [["" if value is None else value] for value in values], np.object_
            )
        else:
            kind = "INT64" if all(isinstance(value, int) for value in values) else "FP64"
            array = np.array(values, {"INT64": np.int64, "FP64": np.float64}[kind]).reshape(-1, 1)
        tensor = InferInput(name, list(array.shape), kind)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return InferRequest(case["model"], inputs, **more)


def plain(response: InferResponse) -> dict[str, Any]:
    """The outputs of a response, in the form of the REST API."""
    outputs = {output.name: output.as_numpy()[:, 0].tolist() for output in response.outputs}
    outputs["reasons"] = [json.loads(text) for text in outputs["reasons"]]
    return outputs


async def main() -> None:
    """Send every kind of request."""
    case = json.load(sys.stdin)
    model, url = case["model"], sys.argv[1]
    in_binary = {"binary_data_output": True}
    asked = [RequestedOutput(name, {"binary_data": True}) for name in case["outputs"]]
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:

        def head() -> dict[str, str]:
            # The client changes the dictionary of headers.
            return dict(case["headers"])

        async def ask(asking: InferRequest | dict[str, Any]) -> InferResponse:
            return await client.infer(url, asking, model_name=model, headers=head())

        async def infer(asking: InferRequest | dict[str, Any]) -> dict[str, Any]:
            return plain(await ask(asking))

        answers = {
            "binary in, json out": await infer(request(case, True)),
            "binary both ways": await infer(request(case, True, parameters=in_binary)),
            "asked in binary": await infer(request(case, True, request_outputs=asked)),
            "json in, binary out": await infer(request(case, False, parameters=in_binary)),
        }
        # Its JSON has null for a missing number, which orjson writes for NaN.
        answers["json both ways"] = await infer(request(case, False))
        answers["a dictionary"] = await infer(request(case, False).to_rest()[0])
        response = await ask(request(case, True, request_id="mine"))
        facts = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model ready": await client.is_model_ready(url, model, headers=head()),
            "other ready": await client.is_model_ready(url, "other", headers=head()),
            "response": [response.model_name, response.id],
        }
        wrong = request(case, True)
        wrong.inputs = wrong.inputs[1:]
        try:
            await ask(wrong)
        except httpx.HTTPStatusError as error:
            facts["error"] = str(error)
    print(json.dumps({"answers": answers, "facts": facts}))


asyncio.run(main())
