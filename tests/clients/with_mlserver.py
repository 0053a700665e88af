"""Send requests to a service with MLServer's types, and print the decoded responses as JSON.

The argument is the address. Standard input has the model's name, columns of loans, and headers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from mlserver.codecs import Base64Codec, NumpyCodec, PandasCodec, StringCodec
from mlserver.types import (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
)


class Client:
    """A client that posts MLServer's types as JSON."""

    def __init__(self, url: str, model: str, headers: dict[str, str]) -> None:
        self.url, self.model, self.headers = url, model, headers

    def infer(self, request: InferenceRequest) -> InferenceResponse:
        """The response to a request that must be accepted."""
        url = f"{self.url}/v2/models/{self.model}/infer"
        answer = httpx.post(url, json=json.loads(request.model_dump_json()), headers=self.headers)
        assert answer.status_code == 200, answer.text
        return InferenceResponse.model_validate(answer.json())

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return httpx.get(f"{self.url}{path}", headers=self.headers).json()


def framed(frame: pd.DataFrame) -> dict[str, Any]:
    """A decoded data frame, in the form of the REST API."""
    outputs: dict[str, Any] = {name: frame[name].tolist() for name in frame}
    outputs["reasons"] = [json.loads(text) for text in outputs["reasons"]]
    return outputs


def decoded(response: InferenceResponse) -> dict[str, Any]:
    """Decode each output with the codec that it names."""
    outputs: dict[str, Any] = {}
    for output in response.outputs:
        assert output.parameters is not None
        if output.parameters.content_type == "str":
            outputs[output.name] = StringCodec.decode_output(output)
        else:
            assert output.parameters.content_type == "np"
            outputs[output.name] = NumpyCodec.decode_output(output)[:, 0].tolist()
    outputs["reasons"] = [json.loads(text) for text in outputs["reasons"]]
    return outputs


def by_codecs(columns: dict[str, list[Any]], text: Any) -> InferenceRequest:
    """Encode each column with a codec for its values."""
    inputs = []
    for name, values in columns.items():
        if any(isinstance(value, str) for value in values):
            inputs.append(text(name, ["" if value is None else value for value in values]))
        else:
            is_integer = all(isinstance(value, int) for value in values)
            array = np.array(values, np.int64 if is_integer else np.float64)
            inputs.append(NumpyCodec.encode_input(name, array.reshape(-1, 1)))
    return InferenceRequest(inputs=inputs)


def batch(client: Client, request: InferenceRequest, *options: str) -> list[Any]:
    """The lines that `mlserver infer` writes for a file of two requests."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        source.write_text(2 * (request.model_dump_json() + "\n"), "utf-8")
        command: list[Any] = [
            Path(sys.executable).with_name("mlserver"),
            "infer",
            "-m",
            client.model,
        ]
        command += ["-u", client.url.removeprefix("http://"), "-i", source, "-o", target, *options]
        for name, value in client.headers.items():
            command += ["-H", f"{name}:{value}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return [json.loads(line) for line in target.read_text("utf-8").splitlines()]


def main() -> None:
    """Send every kind of request."""
    case = json.load(sys.stdin)
    client = Client(sys.argv[1], case["model"], case["headers"])
    columns = case["columns"]
    # The codec for data frames can't write a text column with gaps; an empty text is one.
    frame = pd.DataFrame(columns)
    texts = frame.select_dtypes("object").columns
    frame[texts] = frame[texts].fillna("")
    mixed = frame.astype({case["number"]: object})
    response = client.infer(PandasCodec.encode_request(frame))
    of_mixed = client.infer(PandasCodec.encode_request(mixed))
    request = by_codecs(columns, StringCodec.encode_input)

    def in_base64(name: str, values: list[str]) -> Any:
        return Base64Codec.encode_input(name, [value.encode() for value in values])

    # One loan whose text is missing: the column of a data frame is one of numbers.
    gap = frame.head(1).drop(columns=case["may_miss"])
    gap[case["may_miss"]] = float("nan")
    answers = {
        "data frame": framed(PandasCodec.decode_response(response)),
        "mixed column": framed(PandasCodec.decode_response(of_mixed)),
        "codecs": decoded(client.infer(request)),
        "base64": decoded(client.infer(by_codecs(columns, in_base64))),
    }
    gapped = PandasCodec.encode_request(gap)
    for name, options in {"cli": [], "cli, binary": ["-b"], "cli, batched": ["-s", "2"]}.items():
        for i, line in enumerate(batch(client, request, *options)):
            answers[f"{name}, {i}"] = decoded(InferenceResponse.model_validate(line))
    model = f"/v2/models/{client.model}"
    server = MetadataServerResponse.model_validate(client.get("/v2"))
    metadata = MetadataModelResponse.model_validate(client.get(model))
    error = InferenceErrorResponse.model_validate(client.get("/v2/models/other"))
    facts = {
        "server": server.model_dump(),
        "inputs": [tensor.name for tensor in metadata.inputs or []],
        "versions": metadata.versions,
        "response": [response.model_name, response.model_version],
        "content type": response.parameters and response.parameters.content_type,
        "error": error.error,
        "gap": framed(PandasCodec.decode_response(client.infer(gapped))),
        "gap's datatypes": [tensor.datatype for tensor in gapped.inputs],
    }
    print(json.dumps({"answers": answers, "facts": facts}))


main()
