# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/clients.md against a real server and gateway."""
import json
import os
import re
import subprocess
import sys
import sysconfig
import threading

import pytest
from conftest import ROOT, Gateway, Reply, Server

CLIENTS = ROOT / ".deps" / "clients" / "bin" / "python"
DATASET = ROOT / "examples" / "ray" / "explain_dataset.py"


def blocks(section):
    """The commands of a section of docs/clients.md."""
    text = (ROOT / "docs" / "clients.md").read_text()
    body = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    return "\n".join(line[4:] for line in body.splitlines()
                     if line.startswith("    "))


@pytest.fixture(scope="module")
def python_example(tmp_path_factory):
    """Runs the commands of the section Python, with this environment for its."""
    out = tmp_path_factory.mktemp("python")
    commands = blocks("Python").split("\n", 2)[2]
    assert "grpc_tools.protoc" in commands and "explain.py" in commands

    def run(address, *texts):
        script = commands.replace("venv/bin/python", sys.executable)
        script = script.replace("venv/lib/python3*/site-packages",
                                sysconfig.get_paths()["purelib"])
        script = script.replace("=out", f"={out}")
        script = script.replace("127.0.0.1:50051", address)
        quoted = " ".join(f"'{text}'" for text in texts)
        script = script.replace('"Not bad."', quoted)
        return subprocess.run(["bash", "-euc", script], cwd=ROOT, text=True,
                              capture_output=True, timeout=120)
    return run


def test_python_explains_through_the_gateway_and_without(
        python_example, gateway, server):
    expected = [one["piece"] for one in Reply(
        gateway.explain_url(), body={"input": {"text": "Not bad."}}).json[
            "summary"]["attributions"]]
    outputs = []
    for address in (f"127.0.0.1:{gateway.port}", server.address):
        done = python_example(address, "Not bad.", "")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert re.match(r".+ 0\.\d{3} \(residual \d\.\de-\d\d\)$", lines[0])
        pieces = [re.match(r"  [+-]\d\.\d{4} '(.*)'$", line)[1]
                  for line in lines[1:1 + len(expected)]]
        assert pieces == expected
        assert lines[-2].startswith("INVALID_ARGUMENT")
        assert lines[-1].startswith("  input.text: ")
        outputs.append(lines)
    assert outputs[0] == outputs[1]


def test_python_tries_again_when_the_queue_is_full(python_example, tmp_path):
    server = Server(tmp_path, {"limits": {"max_queue_size": 1},
                               "compute": {"workers": 1}}).start()
    results = []
    threads = [threading.Thread(target=lambda text=text: results.append(
        python_example(server.address, *[f"{text} {i} " + "good " * 60
                                         for i in range(4)])))
        for text in ("a", "b", "c", "d")]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for done in results:
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("residual") == 4, done.stdout
        assert server.metric(
            'limpid_requests_total{code="RESOURCE_EXHAUSTED"') > 0
    finally:
        server.stop()


def parquet(folder, code, *arguments):
    done = subprocess.run([CLIENTS, "-c", code, folder, *arguments], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


WRITE = """
import sys, pyarrow, pyarrow.parquet
texts = [f"A gorgeous, witty, seductive movie, part {i}." for i in range(40)]
texts[7] = ""
pyarrow.parquet.write_table(pyarrow.table({"id": list(range(40)),
                                           "text": texts}),
                            sys.argv[1] + "/texts.parquet")
"""
READ = """
import json, sys, pyarrow.parquet
rows = pyarrow.parquet.read_table(sys.argv[1]).to_pylist()
print(json.dumps(sorted(rows, key=lambda row: row["id"])))
"""


def test_a_data_set_is_explained(tmp_path):
    # A server that must refuse some of it for want of room.
    server = Server(tmp_path, {
        "limits": {"max_queue_size": 2, "max_client_queue_size": 2},
        "compute": {"workers": 1}}).start()
    gateway = Gateway(tmp_path / "gateway", [server])
    texts, out = tmp_path / "texts", tmp_path / "explained"
    texts.mkdir()
    parquet(texts, WRITE)
    try:
        done = subprocess.run(
            [CLIENTS, DATASET, "--input", texts, "--output", out, "--gateway",
             gateway.url(""), "--in-flight", "8"], text=True,
            capture_output=True, timeout=240, env={
                **os.environ, "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"})
        assert done.returncode == 0, done.stderr[-4000:]
        assert "40 rows, 1 with an error" in done.stdout
        rows = json.loads(parquet(out, READ))
        assert [row["id"] for row in rows] == list(range(40))
        for row in rows:
            if row["id"] == 7:
                assert row["error"].startswith("400: ")
                assert row["attribution"] is None
                continue
            assert row["error"] is None, row
            assert "".join(row["tokens"]) == row["text"]
            assert len(row["attribution"]) == len(row["tokens"])
            assert 0 < row["max_reconstruction_error"] < 1e-4
        own = Reply(gateway.explain_url(), body={
            "input": {"text": rows[3]["text"]},
            "method": "integrated-gradients"}).json
        assert rows[3]["attribution"] == pytest.approx(
            [one["value"] for one in own["summary"]["attributions"]], rel=1e-5)
        attempts = [row["attempts"] for row in rows]
        print(f"figure: {len(rows)} rows, {sum(attempts)} calls")
        assert max(attempts) > 1
    finally:
        gateway.stop()
        server.stop()
