# SPDX-License-Identifier: Apache-2.0
"""Health of each model, watched while models come, go and fail."""
import grpc
from harness import model_call

WATCH, CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def request(name):
    """HealthCheckRequest{service: name} on the wire."""
    return b"\x0a" + bytes([len(name)]) + name.encode()


def wait_until(watch, status):
    """Passes over repetitions; the watch's deadline bounds the wait."""
    for told in watch:
        if told == status:
            return
    raise AssertionError("the watch has ended")


def test_health_follows_the_states_of_models(start, honest):
    server = start(models=("recall-mamba", "recall-rwkv4"))
    client = honest(server)
    weights = server.repository / "recall-rwkv4" / "model.safetensors"
    with server.channel() as channel:
        watch = channel.unary_stream(WATCH)(request("recall-rwkv4"), timeout=60)
        check = channel.unary_unary(CHECK)
        wait_until(watch, SERVING)
        model_call(channel, "Unload", "recall-rwkv4")
        wait_until(watch, NOT_SERVING)
        model_call(channel, "Load", "recall-rwkv4")
        wait_until(watch, SERVING)
        model_call(channel, "Unload", "recall-rwkv4")
        wait_until(watch, NOT_SERVING)
        weights.unlink()
        try:
            model_call(channel, "Load", "recall-rwkv4")
            raise AssertionError("loaded without weights")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert check(request("recall-rwkv4"), timeout=5) == NOT_SERVING
        # The server and the other model serve all along.
        assert check(request("recall-mamba"), timeout=5) == SERVING
        assert check(b"", timeout=5) == SERVING
        watch.cancel()
    assert client.during(0).share == 1
