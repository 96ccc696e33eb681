# SPDX-License-Identifier: Apache-2.0
"""A real server, honest clients beside whatever happens to it, and what the
kernel says of its memory and threads."""
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("LIMPID_BUILD_DIR", "build")
MIB = 1 << 20


def _messages():
    described = descriptor_pb2.FileDescriptorSet.FromString(
        (BUILD / "gateway" / "limpid.pb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    return lambda name: message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"limpid.v1.{name}"))


message = _messages()
ExplainRequest, ExplainResponse = message("ExplainRequest"), message(
    "ExplainResponse")
EXPLANATION = "/limpid.v1.ExplanationService/"
MODEL = "/limpid.v1.ModelService/"


def wait_for(condition, seconds=30, what="waited in vain"):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return value


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def explain_request(model="recall-mamba", ids=(5, 7, 11, 13), **fields):
    request = ExplainRequest(model=model, **fields)
    request.input.tokens.ids.extend(ids)
    return request


class Address:
    """Where gRPC is spoken on the loopback address."""

    port = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def channel(self):
        # A pool of its own: else channels of one process share connections.
        return grpc.insecure_channel(
            self.address, options=[("grpc.use_local_subchannel_pool", 1),
                                   ("grpc.max_receive_message_length", -1),
                                   ("grpc.max_reconnect_backoff_ms", 500)])

    def connect(self, timeout=5):
        return socket.create_connection(("127.0.0.1", self.port), timeout)


class Server(Address):
    """limpid-server on a port of its own with copies of a few models."""

    def __init__(self, folder, models=("recall-mamba",), config=None, env=None,
                 log=None, metrics="127.0.0.1:0", wait=True):
        self.folder = folder
        self.repository = folder / "models"
        self.repository.mkdir(parents=True)
        for name in models:
            shutil.copytree(ROOT / "models" / name, self.repository / name)
        settings = {"log": {"level": "warning"}, **(config or {})}
        self.config = folder / "config.json"
        self.config.write_text(json.dumps(settings))
        self.log_path = folder / "log"
        self.metrics_wish, self.log, self.env = metrics, log, env
        self.port = free_port()
        self.spawn()
        if wait:
            self.wait_listening()

    def spawn(self):
        self.process = subprocess.Popen(
            [BUILD / "bin" / "limpid-server", "--config", self.config,
             "--model-repository", self.repository, "--device", "cpu",
             "--listen", f"127.0.0.1:{self.port}",
             "--metrics", self.metrics_wish],
            stdout=subprocess.PIPE, text=True,
            stderr=self.log or self.log_path.open("ab"),
            env={**os.environ, **(self.env or {})})
        self.pid = self.process.pid

    def wait_listening(self):
        for line in self.process.stdout:
            if line.startswith("metrics on "):
                self.metrics_address = line.split()[-1]
            if "limpid-server listening on" in line:
                return
        raise RuntimeError(self.log_path.read_text())

    def metric(self, start):
        """Sum of the samples whose line begins with start."""
        url = f"http://{self.metrics_address}/metrics"
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines()
                   if line.startswith(start))

    def _status(self, name):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])
        raise KeyError(name)

    def anonymous_bytes(self):
        return self._status("RssAnon") * 1024

    def resident_bytes(self):
        return self._status("VmRSS") * 1024

    def num_threads(self):
        return self._status("Threads")

    def terminate(self):
        """SIGTERM; the exit status, and how long it took."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30), time.monotonic() - begin

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Gateway(Address):
    """scripts/gateway in front of a server."""

    def __init__(self, folder, server):
        self.port = free_port()
        log = folder / "gateway.log"
        self.process = subprocess.Popen(
            [ROOT / "scripts" / "gateway", "--no-setup", "--folder", folder,
             "--build", BUILD, "--listen", self.address,
             "--ops", f"127.0.0.1:{free_port()}",
             "--admin", f"127.0.0.1:{free_port()}",
             "--upstream", server.address],
            stdout=log.open("wb"), stderr=subprocess.STDOUT)
        wait_for(lambda: self.process.poll() is not None or
                 b"gateway listening on" in log.read_bytes())
        assert self.process.poll() is None, log.read_text()

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


class Watch:
    """Largest memory and number of threads while the block runs."""

    def __init__(self, server):
        self.server, self.ended = server, threading.Event()
        self.first = (server.anonymous_bytes(), server.num_threads())
        self.memory, self.threads = self.first

    def __enter__(self):
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self):
        while not self.ended.wait(0.05):
            self.memory = max(self.memory, self.server.anonymous_bytes())
            self.threads = max(self.threads, self.server.num_threads())

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    @property
    def grown(self):
        return self.memory - self.first[0]

    @property
    def more_threads(self):
        return self.threads - self.first[1]

    def left(self):
        return self.server.anonymous_bytes() - self.first[0]


class Calls:
    """How the calls of some stretch of time ended."""

    def __init__(self, samples):
        self.samples = samples
        self.served = sum(ok for _, ok, _, _ in samples)

    @property
    def share(self):
        assert self.samples, "nothing was asked"
        return self.served / len(self.samples)

    @property
    def errors(self):
        return sorted({str(why) for _, ok, _, why in self.samples if not ok})

    @property
    def p99(self):
        took = sorted(took for _, _, took, _ in self.samples)
        assert took, "nothing was asked"
        return took[int(len(took) * 0.99)]

    def __str__(self):
        return (f"{self.served}/{len(self.samples)} served, "
                f"p99 {1000 * self.p99:.0f} ms {self.errors or ''}")


class Honest:
    """Asks for a small explanation every `period` seconds, in one thread, and
    checks each reply: right length, reconstruction error small."""

    def __init__(self, server, model="recall-mamba", period=0.05, timeout=5,
                 metadata=()):
        self.model, self.period, self.timeout = model, period, timeout
        self.metadata = metadata
        self.samples, self.lock = [], threading.Lock()
        self.ended = threading.Event()
        self.channel = server.channel()
        self.explain = self.channel.unary_unary(
            EXPLANATION + "Explain",
            request_serializer=ExplainRequest.SerializeToString,
            response_deserializer=ExplainResponse.FromString)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        wait_for(lambda: self.during(0).served >= 3, what=self._first_errors)

    def _first_errors(self):
        return str(self.during(0))

    def _run(self):
        count = 0
        while not self.ended.is_set():
            count += 1
            request = explain_request(
                self.model, [count % 10, count // 10 % 10, 3, 4])
            begin, why = time.monotonic(), None
            try:
                reply = self.explain(request, timeout=self.timeout,
                                     metadata=self.metadata)
                # NaN is wrong, too.
                if not reply.summary.max_reconstruction_error <= 1e-4:
                    why = f"residual {reply.summary.max_reconstruction_error}"
                if [t.id for t in reply.header.tokens] != list(
                        request.input.tokens.ids):
                    why = "another request's tokens"
            except grpc.RpcError as error:
                why = f"{error.code().name}: {error.details()}"
            took = time.monotonic() - begin
            with self.lock:
                self.samples.append((begin, why is None, took, why))
            self.ended.wait(max(0, self.period - took))

    def during(self, begin, end=None):
        """The calls that were begun since `begin` (monotonic)."""
        with self.lock:
            return Calls([s for s in self.samples
                          if s[0] >= begin and (end is None or s[0] <= end)])

    def stop(self):
        self.ended.set()
        self.thread.join()
        self.channel.close()


def serves_new_connections(server, count=20):
    """Every one of `count` calls over new connections is served."""
    for _ in range(count):
        with server.channel() as channel:
            explain_once(channel)


def explain_once(channel, request=None, timeout=10, metadata=()):
    call = channel.unary_unary(
        EXPLANATION + "Explain",
        request_serializer=ExplainRequest.SerializeToString,
        response_deserializer=ExplainResponse.FromString)
    return call(request or explain_request(), timeout=timeout,
                metadata=metadata)


def model_call(channel, verb, model, timeout=60):
    """Load, Unload or Get; returns the model."""
    request, response = message(f"{verb}ModelRequest"), message(
        f"{verb}ModelResponse")
    return channel.unary_unary(
        MODEL + f"{verb}Model", request_serializer=request.SerializeToString,
        response_deserializer=response.FromString)(
            request(model=model), timeout=timeout).model


def list_models(channel):
    response = message("ListModelsResponse")
    return channel.unary_unary(
        MODEL + "ListModels", response_deserializer=response.FromString)(
            b"", timeout=10).models


def stream_call(channel, request, timeout=60):
    """The StreamExplain call, an iterator of bytes."""
    return channel.unary_stream(EXPLANATION + "StreamExplain")(
        request.SerializeToString(), timeout=timeout)
