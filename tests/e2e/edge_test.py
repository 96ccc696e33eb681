# SPDX-License-Identifier: Apache-2.0
"""What the gateway does beside HTTP and JSON: gRPC and gRPC-Web on the same port,
CORS, and the options of deploy/gateway/options."""
import base64
import http.client
import json
import struct
import subprocess
import time

import grpc
import pytest
from conftest import Gateway, Reply, wait_for

TEXT = {"input": {"text": "Not bad."}}


def openssl(folder, *arguments, **options):
    return subprocess.run(["openssl", *arguments], cwd=folder, check=True,
                          capture_output=True, **options).stdout


def call(channel, method, request=b""):
    """A unary call with bytes as messages."""
    return channel.unary_unary(method)(request, timeout=20)


def test_native_grpc(gateway):
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        assert b"sentiment-mamba" in call(
            channel, "/limpid.v1.ModelService/ListModels")
        # Field 1, of 28 bytes: the name of the service.
        health = b"\n\x1climpid.v1.ExplanationService"
        assert call(channel, "/grpc.health.v1.Health/Check", health) == \
            b"\x08\x01"
        with pytest.raises(grpc.RpcError) as error:
            call(channel, "/limpid.v1.ModelService/GetModel", b"\n\x05zebra")
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
        details = dict(error.value.trailing_metadata())
        assert b"MODEL_NOT_FOUND" in details["grpc-status-details-bin"]
        # Neither reflection nor unknown services are let through.
        for method in ("/grpc.reflection.v1alpha.ServerReflection/"
                       "ServerReflectionInfo", "/a.B/C"):
            with pytest.raises(grpc.RpcError) as error:
                call(channel, method)
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_oversized_messages_of_native_callers(gateway):
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        with pytest.raises(grpc.RpcError) as error:
            call(channel, "/limpid.v1.ModelService/GetModel", b"a" * (17 << 20))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def frames(body):
    """(is trailer, bytes) of a gRPC-Web reply."""
    while body:
        flag, size = struct.unpack(">BI", body[:5])
        yield flag >= 0x80, body[5:5 + size]
        body = body[5 + size:]


@pytest.mark.parametrize("kind", ["application/grpc-web+proto",
                                  "application/grpc-web-text"])
def test_grpc_web(gateway, kind):
    text = kind.endswith("text")
    request = struct.pack(">BI", 0, 0)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
    connection.request("POST", "/limpid.v1.ModelService/ListModels",
                       base64.b64encode(request) if text else request,
                       {"content-type": kind, "accept": kind})
    reply = connection.getresponse()
    body = reply.read()
    if text:
        # Pieces are padded one by one.
        body = b"".join(base64.b64decode(body[i:i + 4])
                        for i in range(0, len(body), 4))
    assert reply.status == 200
    parts = list(frames(body))
    assert not parts[0][0] and b"sentiment-mamba" in parts[0][1]
    assert parts[-1][0] and b"grpc-status:0" in parts[-1][1]


def test_browsers_of_other_origins(gateway):
    ask = ("-X", "OPTIONS", "-H", "access-control-request-method: POST", "-H",
           "access-control-request-headers: content-type")
    allowed = Reply(gateway.explain_url(), *ask, "-H",
                    "origin: https://app.example")
    assert allowed.code == 200
    assert allowed.headers["access-control-allow-origin"] == \
        "https://app.example"
    other = Reply(gateway.explain_url(), *ask, "-H",
                  "origin: https://evil.example")
    assert "access-control-allow-origin" not in other.headers


@pytest.fixture
def with_options(server, tmp_path):
    started = []

    def start(*options):
        started.append(Gateway(tmp_path, [server], options))
        return started[-1]
    yield start
    for one in started:
        one.stop()


def test_api_keys(with_options):
    gateway = with_options("api-key")
    for headers in ((), ("-H", "x-api-key: wrong")):
        reply = Reply(gateway.explain_url(), *headers, body=TEXT)
        assert (reply.code, reply.json["code"]) == (401, 16)
        assert reply.detail("ErrorInfo")["domain"] == "gateway"
    reply = Reply(gateway.explain_url(), "-H", "x-api-key: replace-this-key",
                  body=TEXT)
    assert reply.code == 200


def encode(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_json_web_tokens(with_options, tmp_path):
    openssl(tmp_path, "genrsa", "-out", "key.pem", "2048")
    modulus = openssl(tmp_path, "rsa", "-in", "key.pem", "-noout", "-modulus")
    number = bytes.fromhex(modulus.decode().strip().partition("=")[2])
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [
        {"kty": "RSA", "alg": "RS256", "kid": "one", "n": encode(number),
         "e": "AQAB"}]}))

    def token(**claims):
        body = {"iss": "https://issuer.example", "aud": "limpid",
                "sub": "alice", "exp": int(time.time()) + 60, **claims}
        signed = encode({"alg": "RS256", "kid": "one"}) + "." + encode(body)
        signature = openssl(tmp_path, "dgst", "-sha256", "-sign", "key.pem",
                            input=signed.encode())
        return f"{signed}.{encode(signature)}"
    gateway = with_options("jwt")

    def code(text):
        reply = Reply(gateway.explain_url(), *(
            ("-H", f"authorization: Bearer {text}") if text else ()), body=TEXT)
        return reply.code, reply.json.get("code")
    assert code(token())[0] == 200
    assert code("") == (401, 16)
    assert code(token(exp=int(time.time()) - 600)) == (401, 16)
    assert code(token()[:-4] + "AAAA") == (401, 16)
    assert code(token(aud="other")) == (403, 7)
    # Health needs none.
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        assert call(channel, "/grpc.health.v1.Health/Check") == b"\x08\x01"


def test_tls(with_options, tmp_path):
    openssl(tmp_path, "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key",
            "-out", "tls.crt")
    gateway = with_options("tls")
    url = gateway.explain_url().replace("http:", "https:")
    ca = tmp_path / "tls.crt"
    assert Reply(url, "--cacert", ca, body=TEXT).code == 200
    plain = subprocess.run(["curl", "-sS", gateway.explain_url()],
                           capture_output=True)
    assert plain.returncode != 0
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{gateway.port}",
                             credentials) as channel:
        assert b"vim" in call(channel, "/limpid.v1.ModelService/ListModels")


def test_rate_limit(with_options):
    gateway = with_options("rate-limit")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port)
    codes = []
    for _ in range(2000):
        connection.request("GET", "/v1/models/sentiment-mamba")
        reply = connection.getresponse()
        body = json.loads(reply.read())
        codes.append(reply.status)
        if reply.status == 429:
            break
    # 200 at once and 100 a second.
    assert codes[:200] == [200] * 200
    assert codes[-1] == 429 and body["code"] == 8
    wait_for(lambda: Reply(gateway.url("/v1/models")).code == 200)
