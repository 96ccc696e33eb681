# SPDX-License-Identifier: Apache-2.0
"""Real servers, the real Envoy as scripts/gateway starts it, and curl."""
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("LIMPID_BUILD_DIR", "build")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """limpid-server with the embedded models, on a port that it keeps."""

    started = []

    def __init__(self, folder, config=None):
        self.port, self.metrics = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = folder / f"server-{self.port}.log"
        self.config = ROOT / "deploy" / "gateway" / "server.config.json"
        if config is not None:
            self.config = folder / f"server-{self.port}.json"
            self.config.write_text(json.dumps(config))
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [BUILD / "bin" / "limpid-server", "--model-repository",
             ROOT / "models", "--listen", self.address, "--metrics",
             f"127.0.0.1:{self.metrics}", "--config", self.config],
            stdout=subprocess.PIPE, stderr=self.log.open("ab"), text=True)
        Server.started.append(self.process)
        for line in self.process.stdout:
            if "limpid-server listening on" in line:
                return self
        raise RuntimeError(self.log.read_text())

    def stop(self, sign=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.wait(timeout=30)

    def metric(self, start):
        return metric(self.metrics, start)


def metric(port, start):
    """Sum of the samples whose line begins with start."""
    text = urllib.request.urlopen(
        f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines()
               if line.startswith(start))


class Gateway:
    """scripts/gateway in front of servers."""

    def __init__(self, folder, servers, options=()):
        self.port, self.ops = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "gateway.log"
        command = [ROOT / "scripts" / "gateway", "--no-setup",
                   "--listen", f"127.0.0.1:{self.port}",
                   "--ops", f"127.0.0.1:{self.ops}",
                   "--admin", f"127.0.0.1:{free_port()}",
                   "--folder", folder, "--build", BUILD]
        for server in servers:
            command += ["--upstream", server.address]
        for option in options:
            command += ["--option", option]
        self.process = subprocess.Popen(command, stdout=self.log.open("wb"),
                                        stderr=subprocess.STDOUT)
        wait_for(lambda: b"gateway listening on" in self.log.read_bytes() or
                 self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def explain_url(self, model="sentiment-mamba", verb="explain"):
        return self.url(f"/v1/models/{model}:{verb}")

    def healthy(self):
        return metric(self.ops, 'envoy_cluster_membership_healthy'
                      '{envoy_cluster_name="limpid"}')

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Reply:
    """What curl received."""

    def __init__(self, url, *arguments, body=None):
        command = ["curl", "-sS", "-m", "60", "-D", "/dev/stderr", *arguments]
        data = None
        if body is not None:
            command += ["--json", "@-"]
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        done = subprocess.run(command + [url], input=data, capture_output=True)
        head = done.stderr.decode().replace("\r", "")
        blocks = [b for b in head.split("\n\n") if b.startswith("HTTP/")]
        assert blocks, f"curl ended with {done.returncode}: {head}"
        status, *lines = blocks[-1].splitlines()
        self.code = int(status.split()[1])
        self.headers = {name.lower(): value for name, value in
                        (line.split(": ", 1) for line in lines if ": " in line)}
        self.body = done.stdout

    @property
    def json(self):
        return json.loads(self.body)

    def detail(self, name):
        """The google.rpc detail of a type; None without."""
        for detail in self.json["details"]:
            if detail["@type"] == f"type.googleapis.com/google.rpc.{name}":
                return detail
        return None


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    one = Server(tmp_path_factory.mktemp("server")).start()
    yield one
    assert one.stop() == 0


@pytest.fixture(scope="session")
def gateway(server, tmp_path_factory):
    one = Gateway(tmp_path_factory.mktemp("gateway"), [server])
    yield one
    one.stop()


def pytest_sessionfinish():
    """Of tests that failed half-way."""
    for process in Server.started:
        if process.poll() is None:
            process.kill()
