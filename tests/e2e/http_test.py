# SPDX-License-Identifier: Apache-2.0
"""Every route of the HTTP face by curl, with errors and limits."""
import base64
import io
import json
import os
import subprocess
import time

from PIL import Image
from conftest import BUILD, ROOT, Gateway, Reply, Server, wait_for

TEXT = {"input": {"text": "A gorgeous, witty, seductive movie."}}
# Some seconds of computing on one core.
LONG = {"input": {"tokens": {"ids": [7] * 1000}},
        "method": "integrated-gradients", "options": {"steps": 1024}}


def test_models_and_methods(gateway):
    models = Reply(gateway.url("/v1/models")).json["models"]
    folders = sorted(path.name for path in (ROOT / "models").iterdir())
    assert [model["name"] for model in models] == folders
    one = Reply(gateway.url("/v1/models/shapes-vim")).json["model"]
    assert one["architecture"] == "vim"
    methods = Reply(gateway.url("/v1/methods")).json["methods"]
    assert "raw-attention" in [method["name"] for method in methods]


def test_load_and_unload(gateway):
    url = gateway.url("/v1/models/recall-rwkv4")
    assert Reply(url + ":unload", body={}).code == 200
    assert Reply(url).json["model"]["state"] == "MODEL_STATE_UNLOADED"
    assert Reply(url + ":load", body={}).code == 200
    assert Reply(url).json["model"]["state"] == "MODEL_STATE_READY"


def test_explain(gateway):
    reply = Reply(gateway.explain_url(), "-H", "x-request-id: abc-123",
                  body=TEXT)
    assert reply.code == 200
    assert reply.headers["x-request-id"] == "abc-123"
    assert reply.json["header"]["requestId"] == "abc-123"
    summary = reply.json["summary"]
    assert 0 < summary["maxReconstructionError"] < 1e-4
    assert len(summary["attributions"]) == reply.json["header"]["numTokens"]
    wait_for(lambda: '"request_id":"abc-123"' in gateway.log.read_text(), 15)


def test_heatmap_is_a_png(gateway):
    reply = Reply(gateway.explain_url(verb="renderHeatmap"), body=TEXT)
    assert reply.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(reply.body))
    picture.load()
    assert picture.format == "PNG" and picture.width > 10


def test_stream_arrives_incrementally(gateway):
    body = json.dumps({**LONG, "options": {"steps": 128}})
    start = time.monotonic()
    curl = subprocess.Popen(
        ["curl", "-sSN", "--json", body,
         gateway.explain_url(verb="streamExplain")],
        stdout=subprocess.PIPE)
    lines, times = [], []
    for line in curl.stdout:
        lines.append(json.loads(line))
        times.append(time.monotonic() - start)
    assert curl.wait() == 0
    print(f"figure: first line after {times[0]:.3f} s, last after "
          f"{times[-1]:.3f} s, {len(lines)} lines")
    assert "header" in lines[0] and "summary" in lines[-1]
    assert times[0] < times[-1] / 2


def test_wrong_fields_are_all_named(gateway):
    reply = Reply(gateway.explain_url(),
                  body={"input": {"text": ""}, "method": "sorcery"})
    assert (reply.code, reply.json["code"]) == (400, 3)
    fields = reply.detail("BadRequest")["fieldViolations"]
    assert {field["field"] for field in fields} == {"input.text", "method"}
    assert reply.detail("ErrorInfo")["domain"] == "limpid"


def test_unknown_model(gateway):
    reply = Reply(gateway.explain_url("zebra"), body=TEXT)
    assert (reply.code, reply.json["code"]) == (404, 5)
    assert reply.detail("ErrorInfo")["reason"] == "MODEL_NOT_FOUND"


def test_what_the_gateway_refuses(gateway):
    url = gateway.explain_url()
    for reply, code, grpc_code in [
            (Reply(url, body=b'{"input":'), 400, 3),
            (Reply(url, body=b'{"input":{"text":5}}'), 400, 3),
            (Reply(url, "-H", "x-a-bin: @@@", body=TEXT), 400, 3),
            (Reply(url, "-d", "{}"), 415, 3),
            (Reply(gateway.url("/v1/nothing")), 404, 5),
            (Reply(url, body=b"a" * (17 << 20)), 413, 8)]:
        assert (reply.code, reply.json["code"]) == (code, grpc_code)
        assert reply.json["message"]
        assert reply.detail("ErrorInfo")["domain"] == "gateway"


def test_deadline(gateway):
    reply = Reply(gateway.explain_url(), "-H", "grpc-timeout: 200m", body=LONG)
    assert (reply.code, reply.json["code"]) == (504, 4)
    assert reply.detail("ErrorInfo") is not None


def test_reply_of_8_mib(gateway):
    # Two layers of [1024, 1024] float32.
    reply = Reply(gateway.explain_url(), body={
        "input": {"tokens": {"ids": [7] * 1024}},
        "attention": {"kind": "ATTENTION_KIND_MATRIX"}})
    sizes = [len(base64.b64decode(tensor["data"]))
             for tensor in reply.json["tensors"]]
    assert sum(sizes) >= 8 << 20


def test_picture_of_4_mib(gateway):
    file = io.BytesIO()
    Image.frombytes("RGB", (1200, 1200), os.urandom(3 * 1200 ** 2)).save(
        file, "PNG")
    assert len(file.getvalue()) > 4 << 20
    reply = Reply(gateway.explain_url("shapes-vim"), body={
        "input": {"image": base64.b64encode(file.getvalue()).decode()}})
    assert reply.code == 200, reply.body
    assert reply.json["header"]["patchGrid"] == [8, 8]


def test_hang_up_cancels_the_call(gateway, server):
    for verb in ("explain", "streamExplain"):
        before = server.metric("grpc_server_handled_total{")
        curl = subprocess.Popen(
            ["curl", "-sSN", "--json", json.dumps(LONG),
             gateway.explain_url(verb=verb)], stdout=subprocess.DEVNULL)
        wait_for(lambda: server.metric("limpid_requests_in_flight") == 1)
        cancelled = server.metric("limpid_cancelled_compute_seconds_total")
        time.sleep(0.3)
        assert curl.poll() is None
        curl.kill()
        curl.wait()
        wait_for(lambda: server.metric("limpid_requests_in_flight") == 0, 2)
        wait_for(lambda: server.metric(
            "limpid_cancelled_compute_seconds_total") > cancelled, 2)
        assert server.metric("grpc_server_handled_total{") > before


def test_full_queue(tmp_path):
    server = Server(tmp_path, {"limits": {"max_queue_size": 1},
                               "compute": {"workers": 1}}).start()
    gateway = Gateway(tmp_path / "gateway", [server])
    try:
        # Not the same request twice: that would be computed once.
        curls = [subprocess.Popen(
            ["curl", "-sS", "--json", json.dumps(
                {**LONG, "options": {"steps": steps}}), gateway.explain_url()],
            stdout=subprocess.DEVNULL) for steps in (1024, 1023)]
        wait_for(lambda: server.metric("limpid_queue_size") == 1)
        reply = Reply(gateway.explain_url(), body=TEXT)
        assert (reply.code, reply.json["code"]) == (429, 8)
        assert reply.detail("ErrorInfo")["reason"] == "QUEUE_FULL"
        assert reply.detail("RetryInfo") is not None
        for curl in curls:
            curl.kill()
            curl.wait()
        server.stop()
        wait_for(lambda: gateway.healthy() == 0)
        reply = Reply(gateway.explain_url(), body=TEXT)
        assert (reply.code, reply.json["code"]) == (503, 14)
    finally:
        server.stop()
        gateway.stop()


def gateway_script(*arguments):
    return subprocess.run([ROOT / "scripts" / "gateway", "--no-setup",
                           "--validate", *arguments], text=True,
                          capture_output=True)


def test_start_says_what_is_missing(tmp_path):
    done = gateway_script("--folder", tmp_path, "--build", tmp_path)
    assert done.returncode == 1
    assert "limpid.pb; scripts/build limpid_descriptor_set" in done.stderr
    assert "Traceback" not in done.stderr
    # The option's key and certificate are not in the folder.
    done = gateway_script("--folder", tmp_path, "--build", BUILD, "--option",
                          "tls")
    assert done.returncode != 0 and "tls.key" in done.stderr
    done = gateway_script("--folder", tmp_path, "--build", BUILD)
    assert done.returncode == 0
