# SPDX-License-Identifier: Apache-2.0
"""Three servers behind the gateway: one is killed, no call is lost."""
import http.client
import json
import signal
import threading
import time

import pytest
from conftest import Gateway, Server, metric, wait_for

CALLERS = 6
BODY = json.dumps({"input": {"text": "A gorgeous, witty, seductive movie."},
                   "method": "integrated-gradients",
                   "options": {"steps": 256}})


class Load:
    """Callers who ask one thing after another, and what they were told."""

    def __init__(self, gateway):
        self.gateway, self.calls, self.failures = gateway, 0, []
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run)
                        for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.ended.is_set():
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.gateway.port, timeout=60)
            try:
                connection.request("POST", "/v1/models/sentiment-mamba:explain",
                                   BODY, {"content-type": "application/json"})
                reply = connection.getresponse()
                outcome = (reply.status, reply.read())
            except (OSError, http.client.HTTPException) as error:
                outcome = (0, repr(error))
            connection.close()
            with self.lock:
                self.calls += 1
                if outcome[0] != 200:
                    self.failures.append(outcome)

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def replicas(tmp_path):
    servers = [Server(tmp_path).start() for _ in range(3)]
    gateway = Gateway(tmp_path / "gateway", servers)
    wait_for(lambda: gateway.healthy() == 3)
    load = Load(gateway)
    wait_for(lambda: load.calls > 20)
    yield servers, gateway, load
    load.stop()
    gateway.stop()
    for server in servers:
        server.stop()


def retries(gateway):
    return metric(gateway.ops, 'envoy_cluster_upstream_rq_retry'
                  '{envoy_cluster_name="limpid"}')


def test_one_is_killed(replicas):
    servers, gateway, load = replicas
    wait_for(lambda: servers[1].metric("limpid_requests_in_flight") > 0)
    servers[1].stop(signal.SIGKILL)
    time.sleep(4)
    load.stop()
    print(f"figure: {load.calls} calls, {len(load.failures)} failed, "
          f"{retries(gateway):.0f} retried")
    assert load.failures == []
    assert retries(gateway) > 0
    assert gateway.healthy() == 2
