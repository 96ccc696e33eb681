# SPDX-License-Identifier: Apache-2.0
"""Faults of the machine and of operation, each with honest load beside it."""
import ctypes
import os
import resource
import shutil
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import grpc
import pytest
from harness import (BUILD, ROOT, explain_once, explain_request, list_models,
                     message, model_call, serves_new_connections, stream_call,
                     wait_for)

MATRIX, ALL_CHANNELS = 3, 9  # as in explanation.proto


def large_request(model="recall-mamba", tokens=400, steps=None):
    """A stream of many chunks or, with steps, a long computation."""
    request = explain_request(model, [1 + i % 9 for i in range(tokens)])
    if steps:
        request.method = "integrated-gradients"
        request.options.steps = steps
    else:
        request.attention.kind = MATRIX
        request.attention.channel_reduction = ALL_CHANNELS
    return request


def code_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def figure(name, **values):
    print(f"figure: {name}: " + "; ".join(f"{k} {v}" for k, v in
                                          values.items()))


def settled(client, begin, seconds=1.5):
    """The client's calls from `begin` on, once there have been some."""
    wait_for(lambda: time.monotonic() > begin + seconds and
             len(client.during(begin).samples) >= 10)
    return client.during(begin)


def test_killed_while_streaming(start, honest):
    server = start()
    client = honest(server)
    with server.channel() as channel:
        stream = stream_call(channel, large_request())
        next(stream)
        next(stream)
        server.process.kill()
        server.process.wait()
        parts = []
        with pytest.raises(grpc.RpcError) as caught:
            parts.extend(stream)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        last = message("StreamExplainResponse").FromString(parts[-1]) if (
            parts) else None
        assert last is None or last.WhichOneof("part") != "summary"
    server.spawn()
    server.wait_listening()
    back = time.monotonic()
    after = settled(client, back + 3)
    figure("killed while streaming", afterwards=after)
    assert after.share == 1
    serves_new_connections(server)


def test_full_disk_under_the_log(start, honest):
    with open("/dev/full", "wb") as full_disk:
        server = start(log=full_disk, config={"log": {"level": "info"}})
        client = honest(server)
        during = settled(client, time.monotonic(), 2)
        figure("full disk under the log", during=during)
        assert during.share == 1
        assert server.terminate()[0] == 0


@pytest.mark.parametrize("seconds", [3600, -3600, 86400 * 400])
def test_clock_jumps(start, honest, tmp_path, seconds):
    offset = tmp_path / "offset"
    offset.write_bytes(struct.pack("q", 0))
    shim = BUILD / "bin" / "soak" / "clock_shim.so"
    server = start(env={"LD_PRELOAD": str(shim),
                        "LIMPID_CLOCK_OFFSET": str(offset)},
                   config={"log": {"level": "info"}})
    client = honest(server)
    with server.channel() as channel:
        # One runs while the clock jumps.
        stream = stream_call(channel, large_request(steps=128), timeout=120)
        next(stream)
        begin = time.monotonic()
        with offset.open("r+b") as file:
            file.write(struct.pack("q", seconds))
        try:
            for _ in stream:
                pass
            running = "served"
        except grpc.RpcError as error:
            running = error.code().name
        during = settled(client, begin, 3)
    with server.channel() as channel:
        explain_once(channel)
    year = time.gmtime(time.time() + seconds).tm_year
    hour = time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() + seconds))
    assert hour in server.log_path.read_text(), f"no jump to {year}"
    figure(f"clock jumps by {seconds} s", during=during, running=running)
    # A deadline is a point of the wall clock; only forward jumps pass it.
    assert running == "served" or (seconds > 0 and
                                   running == "DEADLINE_EXCEEDED")
    assert during.share >= 0.9
    assert client.during(begin + 1).share == 1
    assert server.terminate()[0] == 0


def black_hole(connection):
    """From now on the socket drops all it is sent, acknowledgements too: to its
    peer it is a machine that has lost its power."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    connection.setsockopt(
        socket.SOL_SOCKET, 26,  # SO_ATTACH_FILTER
        struct.pack("HL", 1, ctypes.addressof(drop_all)))


def num_sockets(server):
    count = 0
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except OSError:
            pass
    return count


def test_half_open_connections(start, honest):
    import frames
    server = start(config={"connections": {"keepalive_seconds": 1,
                                           "keepalive_timeout_seconds": 1}})
    client = honest(server)
    before = num_sockets(server)
    begin = time.monotonic()
    held = [frames.connect(server.port) for _ in range(100)]
    for connection in held:
        connection.sendall(frames.headers(1, frames.request_block(
            "/limpid.v1.ExplanationService/Explain")))
        connection.recv(1000)
        black_hole(connection)
    assert num_sockets(server) >= before + 100
    wait_for(lambda: num_sockets(server) <= before,
             what="connections to nobody stay")
    took = time.monotonic() - begin
    during = client.during(begin)
    figure("100 half-open connections", gone_after=f"{took:.1f} s",
           during=during)
    assert during.share == 1
    for connection in held:
        connection.close()


def test_damaged_checkpoint_on_reload(start, honest):
    server = start(models=("recall-mamba", "recall-rwkv4"))
    client = honest(server)
    begin = time.monotonic()
    weights = server.repository / "recall-rwkv4" / "model.safetensors"
    whole = weights.read_bytes()
    with server.channel() as channel:
        for damage in (whole[:len(whole) // 2], bytes(100), b"",
                       whole[:8] + b"\xff" * 64 + whole[72:]):
            model_call(channel, "Unload", "recall-rwkv4")
            replace_file(weights, damage)
            assert code_of(lambda: model_call(
                channel, "Load", "recall-rwkv4")) == grpc.StatusCode.DATA_LOSS
            told = model_call(channel, "Get", "recall-rwkv4")
            assert told.state == 5 and "model.safetensors" in told.state_reason
        replace_file(weights, whole)
        assert model_call(channel, "Load", "recall-rwkv4").state == 3
        explain_once(channel, explain_request("recall-rwkv4"))
    during = settled(client, begin)
    figure("damaged checkpoint on reload", during=during)
    assert during.share == 1


def test_loads_during_traffic(start, honest):
    server = start(models=("recall-mamba", "sentiment-rwkv4"))
    client = honest(server, period=0.01)
    begin = time.monotonic()
    with server.channel() as channel:
        for _ in range(20):
            assert model_call(channel, "Unload", "sentiment-rwkv4").state == 1
            assert model_call(channel, "Load", "sentiment-rwkv4").state == 3
    during = settled(client, begin)
    figure("20 loads during traffic", during=during)
    assert during.share == 1


def replace_file(path, content):
    """As an installer does; a file under a map is never written."""
    part = path.with_name("part")
    part.write_bytes(content)
    part.rename(path)


def test_changed_folders_are_picked_up_by_polling(start, honest):
    server = start(config={"repository_poll_seconds": 0.1})
    folder = server.repository / "recall-mamba"
    config = folder / "config.json"
    client = honest(server, period=0.01)
    begin = time.monotonic()
    with server.channel() as channel:
        def told():
            return model_call(channel, "Get", "recall-mamba")

        digests = {told().digest}
        for i in range(5):
            # Another digest, the same model.
            replace_file(config, config.read_bytes() + b"\n")
            wait_for(lambda: told().digest not in digests)
            digests.add(told().digest)
        replace_file(config, b"{")
        wait_for(lambda: told().state_reason)
        # Damaged, but what was there goes on.
        assert told().state == 3 and told().digest in digests
        assert explain_once(channel).header.model_digest in digests
        # Another model, which nobody has asked for by name.
        shutil.copytree(ROOT / "models" / "recall-rwkv4",
                        server.repository / "new")
        wait_for(lambda: any(m.name == "new" and m.state == 3
                             for m in list_models(channel)))
        explain_once(channel, explain_request("new"))
    during = settled(client, begin)
    figure("5 changed folders, one damaged, by polling", during=during)
    assert during.share == 1


def test_folder_deleted_while_it_is_served(start, honest):
    server = start()
    client = honest(server)
    begin = time.monotonic()
    shutil.rmtree(server.repository / "recall-mamba")
    during = settled(client, begin)
    figure("folder deleted while served", during=during)
    assert during.share == 1
    with server.channel() as channel:
        model_call(channel, "Unload", "recall-mamba")
        # A folder that is gone and serves nobody is forgotten.
        assert code_of(lambda: model_call(channel, "Load", "recall-mamba")) == (
            grpc.StatusCode.NOT_FOUND)


class Tracer:
    """Stops single threads of a process, which no signal can. All calls must
    come from the thread that made it."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2

    def call(self, request, thread):
        if self.libc.ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def stop(self, thread):
        self.call(self.SEIZE, thread)
        self.call(self.INTERRUPT, thread)
        os.waitpid(thread, 0x40000000)  # __WALL

    def resume(self, thread):
        self.call(self.DETACH, thread)


def busiest_thread(pid):
    def ticks():
        return {int(t.name): int((t / "stat").read_text().rsplit(")")[-1]
                                 .split()[11])
                for t in Path(f"/proc/{pid}/task").iterdir()}
    first = ticks()
    time.sleep(0.5)
    last = ticks()
    return max(last, key=lambda t: last[t] - first.get(t, 0))


def test_stalled_worker(start, honest):
    server = start(config={"compute": {"workers": 2}})
    client = honest(server)
    with server.channel() as channel:
        # Long enough to be found working; then it stands still.
        stream = stream_call(channel, large_request(steps=1024), timeout=120)
        next(stream)
        worker = busiest_thread(server.pid)
        tracer = Tracer()
        tracer.stop(worker)
        try:
            begin = time.monotonic()
            during = settled(client, begin, 3)
        finally:
            tracer.resume(worker)
        last = None
        for last in stream:
            pass
    figure("stalled worker", during=during)
    assert during.share == 1
    assert message("StreamExplainResponse").FromString(last).WhichOneof(
        "part") == "summary"


def test_stopped_process(start, honest):
    server = start()
    client = honest(server, timeout=10)
    begin = time.monotonic()
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    server.process.send_signal(signal.SIGCONT)
    during = settled(client, begin)
    figure("process stopped for 2 s", during=during)
    assert during.share == 1


def test_metrics_port_taken(start, honest, tmp_path):
    server = start()
    client = honest(server)
    begin = time.monotonic()
    other = start(metrics=server.metrics_address, wait=False)
    assert other.process.wait(timeout=30) == 1
    said = other.log_path.read_text()
    assert server.metrics_address in said, said
    assert client.during(begin).served > 0
    assert settled(client, begin).share == 1
    assert server.metric("grpc_server_started_total") > 0


def test_silent_connections_to_metrics(start, honest):
    server = start()
    client = honest(server)
    host, port = server.metrics_address.split(":")
    begin = time.monotonic()
    held = [socket.create_connection((host, int(port))) for _ in range(100)]
    scrape = time.monotonic()
    assert server.metric("grpc_server_started_total") > 0
    took = time.monotonic() - scrape
    during = settled(client, begin)
    figure("100 silent connections to metrics", scrape=f"{took:.2f} s",
           during=during)
    assert during.share == 1
    for connection in held:
        connection.close()


def test_token_file_replaced_under_load(start, honest, tmp_path):
    tokens = tmp_path / "tokens"

    def replace(text):
        part = tmp_path / "tokens.part"
        part.write_text(text)
        part.chmod(0o600)
        part.rename(tokens)

    replace("one explain first-token-first-token\n")
    server = start(config={"token_file": str(tokens)})
    first = [("authorization", "Bearer first-token-first-token")]
    second = [("authorization", "Bearer second-token-second-token")]
    client = honest(server, metadata=first)
    begin = time.monotonic()
    # Both count for a while, so that callers can change over.
    replace("one explain first-token-first-token\n"
            "one explain second-token-second-token\n")
    settled(client, begin)
    assert client.during(begin).share == 1
    replace("one explain second-token-second-token\n")
    revoked = time.monotonic()
    with server.channel() as channel:
        explain_once(channel, metadata=second)
        assert code_of(lambda: explain_once(channel, metadata=first)) == (
            grpc.StatusCode.UNAUTHENTICATED)
    assert settled(client, revoked + 0.1).served == 0
    replace("one explain first-token-first-token\n")
    back = time.monotonic()
    assert settled(client, back + 0.1).share == 1


def test_descriptors_run_out(start, honest):
    server = start()
    client = honest(server)
    begin = time.monotonic()
    used = max(int(n) for n in os.listdir(f"/proc/{server.pid}/fd")) + 1
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 20, hard))
    held = [socket.create_connection(("127.0.0.1", server.port))
            for _ in range(200)]
    during = settled(client, begin, 2)
    for connection in held:
        connection.close()
    end = time.monotonic()
    serves_new_connections(server)
    after = settled(client, end)
    figure("descriptors run out", during=during, afterwards=after)
    assert during.share == 1
    assert after.share == 1


def test_unloaded_under_load(start, honest):
    server = start()
    client = honest(server, period=0.005)
    begin = time.monotonic()
    with server.channel() as channel:
        for _ in range(20):
            model_call(channel, "Unload", "recall-mamba")
            model_call(channel, "Load", "recall-mamba")
            served = time.monotonic()
            wait_for(lambda: client.during(served).served > 0)
    during = client.during(begin)
    figure("unloaded 20 times under load", during=during)
    # Refused while it is not there, and never anything else.
    assert all(why.startswith(("FAILED_PRECONDITION", "UNAVAILABLE"))
               for why in during.errors), during.errors
    assert during.served > 20


def test_sigterm_under_load_with_streams(start, honest):
    # Enough workers that nobody waits for the streams.
    server = start(config={"compute": {"workers": 8}})
    client = honest(server)
    with server.channel() as channel:
        streams = [stream_call(channel, large_request(steps=64))
                   for _ in range(4)]
        for stream in streams:
            next(stream)
        begin = time.monotonic()
        ended = []
        reader = threading.Thread(
            target=lambda: ended.extend(list(s)[-1] for s in streams))
        reader.start()
        status, took = server.terminate()
        reader.join()
    window = client.during(begin, begin + 0.4)
    figure("SIGTERM with 4 streams", exit=status, after=f"{took:.1f} s",
           in_the_serving_window=window)
    assert status == 0 and took < 15
    assert window.share == 1
    assert len(ended) == 4
    for last in ended:
        assert message("StreamExplainResponse").FromString(last).WhichOneof(
            "part") == "summary"
