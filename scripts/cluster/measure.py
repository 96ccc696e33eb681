# SPDX-License-Identifier: Apache-2.0
"""Measures what the arithmetic needs and this machine can tell: the processor
time of explanations on CPUs by kind of request, that of the gateway by size of the
reply, and how long a server takes to start.

Processor time is the sum over a process's threads: other work on the machine
hardly changes it, unlike the times by the clock.
"""
import base64
import http.client
import json
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Requests whose cost is measured: models (None: all that read text), lengths,
# and further arguments of `limpid bench`. Each model and length is one kind.
WORKLOADS = {
    "small": (None, (8, 32, 128), []),
    "text-512": (["sentiment-mamba"], (512,), []),
    "gradients-128": (["sentiment-mamba"], (128,),
                      ["--method", "integrated-gradients"]),
}
# Tokens of the replies, with every layer's matrix, by which the gateway's cost
# is measured; 0: without matrices.
MATRIX_TOKENS = (0, 64, 128, 256, 512, 1024)
MODEL = "sentiment-mamba"


def processor_seconds(pid):
    """Of all threads of a process that are there."""
    return sum(int(path.read_text().split()[0]) for path in
               pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


class Gateway:
    """A server with the embedded models, and scripts/gateway in front of it."""

    def __init__(self, port=18080):
        self.address = f"127.0.0.1:{port}"
        start = time.monotonic()
        self.server = self.start(
            [ROOT / "build/bin/limpid-server", "--model-repository",
             ROOT / "models", "--metrics", "off", "--config",
             ROOT / "deploy/gateway/server.config.json"])
        self.server_address = self.said(self.server,
                                        "limpid-server listening on ")
        self.server_started_in = time.monotonic() - start
        self.gateway = self.start(
            [ROOT / "scripts/gateway", "--no-setup", "--listen", self.address,
             "--upstream", self.server_address,
             "--ops", f"127.0.0.1:{port + 1}",
             "--admin", f"127.0.0.1:{port + 2}"])
        self.said(self.gateway, "gateway listening on ")
        children = pathlib.Path(f"/proc/{self.gateway.pid}/task/"
                                f"{self.gateway.pid}/children").read_text()
        (self.envoy_pid,) = map(int, children.split())

    @staticmethod
    def start(command):
        # A file, since Envoy's access log goes there too and a pipe that nobody
        # reads would stop it.
        output = tempfile.NamedTemporaryFile("w")
        process = subprocess.Popen(command, stdout=output,
                                   stderr=subprocess.DEVNULL)
        process.output = output
        return process

    @staticmethod
    def said(process, beginning):
        while process.poll() is None:
            for line in pathlib.Path(process.output.name).open():
                if line.startswith(beginning):
                    return line.removeprefix(beginning).strip()
            time.sleep(0.02)
        raise SystemExit(f"{process.args[0]} did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.gateway, self.server):
            process.terminate()
            process.wait(timeout=30)


def call(address, body):
    """The bytes of the JSON reply and of the tensors in it."""
    connection = http.client.HTTPConnection(address, timeout=120)
    connection.request("POST", f"/v1/models/{MODEL}:explain", json.dumps(body),
                       {"content-type": "application/json"})
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    if reply.status != 200:
        raise SystemExit(text.decode())
    tensors = sum(len(base64.b64decode(tensor["data"]))
                  for tensor in json.loads(text)["tensors"])
    return len(text), tensors


def gateway_costs(gateway, repeats):
    rows = []
    for tokens in MATRIX_TOKENS:
        body = {"input": {"tokens": {"ids": [7] * (tokens or 32)}}}
        if tokens:
            body["attention"] = {"kind": "ATTENTION_KIND_MATRIX"}
        call(gateway.address, body)
        count = repeats * (20 if tokens <= 32 else 1)
        before = processor_seconds(gateway.envoy_pid)
        for _ in range(count):
            json_bytes, tensor_bytes = call(gateway.address, body)
        spent = processor_seconds(gateway.envoy_pid) - before
        rows.append({"requests": count, "tensor_bytes": tensor_bytes,
                     "json_bytes": json_bytes,
                     "gateway_ms": round(1e3 * spent / count, 4)})
    return rows


def bench(gateway, address, arguments, seconds):
    """`limpid bench`: how many requests, and milliseconds of the processor that
    one took of the server and of the gateway."""
    pids = gateway.server.pid, gateway.envoy_pid
    before = [processor_seconds(pid) for pid in pids]
    done = subprocess.run(
        [ROOT / "build/bin/limpid", "--server", address, "bench", "--json",
         "--clients", "2", "--duration", f"{seconds}s", *arguments],
        capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    count = json.loads(done.stdout)["ok"]
    return count, *(1e3 * (processor_seconds(pid) - was) / count
                    for pid, was in zip(pids, before))


def text_models(gateway):
    listed = subprocess.run(
        [ROOT / "build/bin/limpid", "--server", gateway.server_address,
         "models", "--json"], capture_output=True, text=True, check=True)
    return [model["name"] for model in json.loads(listed.stdout)
            if model["modality"] != "MODALITY_IMAGE"]


def workload(gateway, models, lengths, arguments, seconds):
    kinds = [(bench(gateway, gateway.server_address,
                    ["--model", model, "--lengths", str(length), *arguments],
                    seconds))
             for model in models for length in lengths]
    times = sorted(round(server_ms, 4) for _, server_ms, _ in kinds)
    return {"requests": sum(count for count, *_ in kinds),
            "server_ms": round(sum(times) / len(times), 4),
            "server_ms_by_kind": times}


def measure(seconds=1.5, repeats=10):
    cpu = next((line.partition(":")[2].strip()
                for line in pathlib.Path("/proc/cpuinfo").open()
                if line.startswith("model name")), "unknown")
    load = os.getloadavg()[0]
    with Gateway() as gateway:
        models = text_models(gateway)
        workloads = {
            name: workload(gateway, chosen or models, lengths, arguments,
                           seconds if chosen is None else 5 * seconds)
            for name, (chosen, lengths, arguments) in WORKLOADS.items()}
        count, server_ms, gateway_ms = bench(gateway, gateway.address, [],
                                             10 * seconds)
        return {"cpu": cpu, "cores": os.cpu_count(),
                "load_average_before": round(load, 1),
                "start_seconds": round(gateway.server_started_in, 2),
                "workloads": workloads,
                "small_through_gateway": {"requests": count,
                                          "server_ms": round(server_ms, 4),
                                          "gateway_ms": round(gateway_ms, 4)},
                "gateway": gateway_costs(gateway, repeats)}
