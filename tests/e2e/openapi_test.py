# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document says what the gateway does: it is the one that the protos
give, and real replies fit it."""
import json
import subprocess
import sys

import jsonschema
import pytest
from conftest import BUILD, ROOT, Reply

DOCUMENT = json.loads((ROOT / "deploy/gateway/openapi.json").read_text())
BODY = {"input": {"text": "Not bad."}, "method": "integrated-gradients",
        "options": {"steps": 8}, "faithfulness": {"enabled": True},
        "output": {"logits": True, "encoding": "TENSOR_ENCODING_FLOATS"},
        "aggregation": {"unit": "AGGREGATION_UNIT_WORD"}}


def check(schema, value):
    """As strictly as the document allows: no member that it does not name."""
    def close(node):
        if isinstance(node, dict):
            node = {key: close(one) for key, one in node.items()}
            if "properties" in node and "@type" not in node["properties"]:
                node["additionalProperties"] = False
            return node
        return [close(one) for one in node] if isinstance(node, list) else node
    jsonschema.Draft202012Validator(
        {**close(schema), "components": close(DOCUMENT["components"])}
    ).validate(value)


def operation(path, verb):
    return DOCUMENT["paths"][path][verb]


def reply_schema(path, verb, code="200"):
    reply = operation(path, verb)["responses"][code]
    if "$ref" in reply:
        reply = DOCUMENT["components"]["responses"]["Error"]
    return reply["content"]["application/json"]["schema"]


def test_is_made_from_the_protos(tmp_path):
    made = tmp_path / "openapi.json"
    subprocess.run([sys.executable, ROOT / "scripts" / "openapi", "--output",
                    made, BUILD / "gateway" / "limpid.pb"], check=True)
    assert made.read_text() == (
        ROOT / "deploy/gateway/openapi.json").read_text()


def test_every_schema_is_one_and_has_words():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        if name.startswith("limpid."):
            assert schema["description"]
            for member in schema.get("properties", {}).values():
                assert member["description"], name


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/{model}",
                                  "/v1/methods"])
def test_gets(gateway, path):
    reply = Reply(gateway.url(path.replace("{model}", "sentiment-mamba")))
    assert reply.code == 200
    check(reply_schema(path, "get"), reply.json)


def test_explanations(gateway):
    path = "/v1/models/{model}:explain"
    check(operation(path, "post")["requestBody"]["content"][
        "application/json"]["schema"], BODY)
    reply = Reply(gateway.explain_url(), body=BODY)
    assert reply.code == 200, reply.body
    check(reply_schema(path, "post"), reply.json)
    stream = Reply(gateway.explain_url(verb="streamExplain"), body=BODY)
    lines = stream.body.splitlines()
    assert len(lines) > 3
    for line in lines:
        check(reply_schema("/v1/models/{model}:streamExplain", "post"),
              json.loads(line))


def test_heatmap(gateway):
    replies = operation("/v1/models/{model}:renderHeatmap", "post")["responses"]
    reply = Reply(gateway.explain_url(verb="renderHeatmap"),
                  body={"input": BODY["input"]})
    assert list(replies["200"]["content"]) == [reply.headers["content-type"]]


def test_errors(gateway):
    schema = reply_schema("/v1/models/{model}:explain", "post", "default")
    for body in ({"input": {"text": ""}}, b"{"):
        reply = Reply(gateway.explain_url(), body=body)
        assert reply.code == 400
        check(schema, reply.json)


def test_the_document_refuses_what_is_wrong():
    schema = reply_schema("/v1/models/{model}", "get")
    for wrong in ({"model": {"name": 5}}, {"modell": {}},
                  {"model": {"state": "READY"}}):
        with pytest.raises(jsonschema.ValidationError):
            check(schema, wrong)
