# SPDX-License-Identifier: Apache-2.0
"""Calls a server with Triton's own client, as a program of its own since that
has its own packages, and prints what came as one JSON object.

Usage: open_inference_calls.py HOST:PORT PICTURE.png
"""
import json
import sys

import numpy
import tritonclient.grpc as triton


def tensor(name, datatype, array):
    one = triton.InferInput(name, list(array.shape), datatype)
    one.set_data_from_numpy(array)
    return one


def text(value):
    return tensor("text", "BYTES", numpy.array([value.encode()], dtype=object))


def refusal(call):
    try:
        call()
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def described(reply):
    """Outputs by name, with shapes and their sums or texts."""
    outputs = {}
    for output in reply.get_response().outputs:
        array = reply.as_numpy(output.name)
        outputs[output.name] = {
            "datatype": output.datatype, "shape": list(array.shape),
            "values": [value.decode(errors="replace") if isinstance(
                value, bytes) else float(value) for value in array.flat]}
    return outputs


def main():
    address, picture = sys.argv[1:]
    client = triton.InferenceServerClient(address)
    out = {"live": client.is_server_live(), "ready": client.is_server_ready(),
           "model_ready": client.is_model_ready("sentiment-mamba"),
           "server": client.get_server_metadata(as_json=True),
           "metadata": client.get_model_metadata("sentiment-mamba",
                                                 as_json=True),
           "picture_metadata": client.get_model_metadata("shapes-vim",
                                                         as_json=True)}
    sentence = text("A gorgeous, witty, seductive movie.")
    reply = client.infer("sentiment-mamba", [sentence], request_id="mine")
    out["id"] = reply.get_response().id
    out["explanation"] = described(reply)
    figures = reply.get_response().parameters
    out["reconstruction_error"] = figures[
        "max_reconstruction_error"].double_param
    gradients = client.infer(
        "sentiment-mamba", [sentence],
        outputs=[triton.InferRequestedOutput("attribution"),
                 triton.InferRequestedOutput("layers.0.attention")],
        parameters={"method": "integrated-gradients", "options.steps": 16,
                    "options.baseline.mean": True,
                    "attention.kind": "ATTENTION_KIND_MATRIX",
                    "point.target.contrast.id": 1,
                    "point.target.contrast.baseline_id": 2})
    out["gradients"] = described(gradients)
    out["completeness_error"] = gradients.get_response().parameters[
        "completeness_error"].double_param
    out["tokens"] = described(client.infer(
        "recall-mamba", [tensor("tokens", "INT64",
                                numpy.array([[1, 2, 3]], numpy.int64))]))
    with open(picture, "rb") as file:
        out["picture"] = described(client.infer(
            "shapes-vim", [tensor("image", "BYTES", numpy.array(
                [file.read()], dtype=object))]))
    out["refusals"] = {
        "method": refusal(lambda: client.infer(
            "sentiment-mamba", [sentence], parameters={"method": "sorcery"})),
        "parameter": refusal(lambda: client.infer(
            "sentiment-mamba", [sentence], parameters={"steps": 16})),
        "output": refusal(lambda: client.infer(
            "sentiment-mamba", [sentence],
            outputs=[triton.InferRequestedOutput("zebra")])),
        "model": refusal(lambda: client.infer("zebra", [sentence])),
        "version": refusal(lambda: client.infer(
            "sentiment-mamba", [sentence], model_version="7"))}
    states = []
    for change in (client.unload_model, client.load_model):
        change("recall-rwkv5")
        index = client.get_model_repository_index(as_json=True)["models"]
        states += [model["state"] for model in index
                   if model["name"] == "recall-rwkv5"]
    out["states"] = states
    # Field numbers of the protocol, as the client has them.
    from tritonclient.grpc import service_pb2
    fields = {}

    def collect(message):
        fields[message.full_name] = {
            field.name: [field.number, field.type] for field in message.fields}
        for nested in message.nested_types:
            collect(nested)
    for message in service_pb2.DESCRIPTOR.message_types_by_name.values():
        collect(message)
    out["fields"] = fields
    print(json.dumps(out))


if __name__ == "__main__":
    main()
