# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol with Triton's own client, through the gateway and
straight at the server."""
import json
import subprocess

import pytest
from PIL import Image
from conftest import ROOT, Reply
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

CLIENT = ROOT / ".deps" / "clients" / "bin" / "python"
SENTENCE = "A gorgeous, witty, seductive movie."


def call(address, folder):
    picture = folder / "picture.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(picture)
    done = subprocess.run(
        [CLIENT, ROOT / "tests" / "e2e" / "open_inference_calls.py", address,
         picture], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def answers(gateway, tmp_path_factory):
    return call(f"127.0.0.1:{gateway.port}", tmp_path_factory.mktemp("triton"))


def test_server_and_models_describe_themselves(answers):
    assert answers["live"] and answers["ready"] and answers["model_ready"]
    assert answers["server"]["name"] == "limpid"
    metadata = answers["metadata"]
    assert metadata["platform"] == "limpid_mamba"
    assert [i["name"] for i in metadata["inputs"]] == ["text", "tokens"]
    assert {"attribution", "layers.0.attention", "logits"} <= {
        output["name"] for output in metadata["outputs"]}
    assert answers["picture_metadata"]["inputs"][0]["name"] == "image"


def test_values_are_those_of_explain(answers, gateway):
    own = Reply(gateway.explain_url(), body={
        "input": {"text": SENTENCE}, "output": {"logits": True}}).json
    outputs = answers["explanation"]
    assert answers["id"] == "mine"
    assert answers["reconstruction_error"] < 1e-4
    for listed in answers["metadata"]["outputs"]:
        assert outputs[listed["name"]]["datatype"] == listed["datatype"]
    expected = [one["value"] for one in own["summary"]["attributions"]]
    assert outputs["attribution"]["values"] == pytest.approx(expected, rel=1e-6)
    pieces = [one["piece"] for one in own["header"]["tokens"]]
    assert outputs["tokens.pieces"]["values"] == pieces
    shapes = {tensor["header"]["name"]: [int(n) for n in
                                         tensor["header"]["shape"]]
              for tensor in own["tensors"]}
    for name, shape in shapes.items():
        assert outputs[name]["shape"] == shape


def test_parameters_choose_method_and_target(answers):
    outputs = answers["gradients"]
    assert set(outputs) == {"attribution", "layers.0.attention"}
    length = outputs["attribution"]["shape"][0]
    assert outputs["layers.0.attention"]["shape"] == [length, length]
    assert answers["completeness_error"] != 0
    assert outputs["attribution"]["values"] != \
        answers["explanation"]["attribution"]["values"]


def test_tokens_and_pictures(answers):
    assert answers["tokens"]["attribution"]["shape"] == [3]
    assert answers["tokens"]["tokens"]["values"] == [1, 2, 3]
    assert answers["picture"]["attribution"]["shape"] == [8, 8]


def test_refusals_name_what_is_wrong(answers):
    refusals = answers["refusals"]
    for name, code, word in [
            ("method", "INVALID_ARGUMENT", "sorcery"),
            ("parameter", "INVALID_ARGUMENT", 'parameters["steps"]'),
            ("output", "INVALID_ARGUMENT", "zebra"),
            ("model", "NOT_FOUND", "zebra"),
            ("version", "INVALID_ARGUMENT", "model_version")]:
        assert refusals[name][0] == f"StatusCode.{code}", name
        assert word in refusals[name][1]


def test_models_are_loaded_and_unloaded(answers):
    assert answers["states"] == ["UNAVAILABLE", "READY"]


def test_the_server_alone_says_the_same(answers, server, tmp_path):
    alone = call(server.address, tmp_path)
    assert alone["explanation"] == answers["explanation"]
    assert alone["refusals"] == answers["refusals"]


def test_field_numbers_are_the_protocols(answers, tmp_path):
    described = tmp_path / "set.pb"
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}",
                        f"--descriptor_set_out={described}",
                        "inference/open_inference.proto"]) == 0
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(described.read_bytes())
    compared = 0

    def compare(prefix, message):
        nonlocal compared
        name = f"{prefix}.{message.name}"
        for field in message.field:
            assert answers["fields"][name][field.name] == [
                field.number, field.type], f"{name}.{field.name}"
            compared += 1
        for nested in message.nested_type:
            compare(name, nested)
    for message in files.file[0].message_type:
        compare("inference", message)
    assert compared > 60
