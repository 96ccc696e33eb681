# SPDX-License-Identifier: Apache-2.0
"""Three servers behind the gateway: one is killed, all are restarted, no call is
lost."""
import http.client
import itertools
import json
import signal
import threading

import pytest
from conftest import Gateway, Server, metric, wait_for

CALLERS = 6


def body(number):
    """No two are the same: those would share one computation."""
    return json.dumps({
        "input": {"text": f"A gorgeous, witty, seductive movie. {number}"},
        "method": "integrated-gradients", "options": {"steps": 256}})


class Load:
    """Callers who ask one thing after another, and what they were told. Every
    other reply is a stream, which is well if it ends with a summary."""

    def __init__(self, gateway):
        self.gateway, self.calls, self.failures = gateway, 0, []
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.numbers = itertools.count()
        self.threads = [threading.Thread(target=self.run)
                        for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.ended.is_set():
            number = next(self.numbers)
            verb = "streamExplain" if number % 2 else "explain"
            connection = http.client.HTTPConnection(
                "127.0.0.1", self.gateway.port, timeout=60)
            try:
                connection.request(
                    "POST", f"/v1/models/sentiment-mamba:{verb}", body(number),
                    {"content-type": "application/json"})
                reply = connection.getresponse()
                outcome = (reply.status, reply.read())
            except (OSError, http.client.HTTPException) as error:
                outcome = (0, repr(error))
            connection.close()
            with self.lock:
                self.calls += 1
                if outcome[0] != 200 or b'"summary":' not in outcome[1]:
                    self.failures.append((verb, *outcome))

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
    before = load.calls
    servers[1].stop(signal.SIGKILL)
    wait_for(lambda: gateway.healthy() == 2 and load.calls > before + 30)
    load.stop()
    # A stream that has begun can't be repeated by anybody but its caller, who
    # sees it break off.
    broken = [one for one in load.failures if one[0] == "streamExplain" and
              one[1] == 0]
    print(f"figure: {load.calls} calls, {len(load.failures) - len(broken)} "
          f"failed, {retries(gateway):.0f} retried, {len(broken)} streams "
          "broken off")
    assert [one for one in load.failures if one not in broken] == []
    assert len(broken) < CALLERS
    assert retries(gateway) + len(broken) > 0


def test_all_are_restarted_one_after_another(replicas):
    servers, gateway, load = replicas
    for server in servers:
        assert server.stop() == 0
        wait_for(lambda: gateway.healthy() == 2)
        server.start()
        wait_for(lambda: gateway.healthy() == 3)
    load.stop()
    print(f"figure: {load.calls} calls, {len(load.failures)} failed, "
          f"{retries(gateway):.0f} retried")
    assert load.failures == []
