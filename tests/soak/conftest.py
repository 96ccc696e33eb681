# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the soak tests: see harness.py."""
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import Gateway, Honest, Server  # noqa: E402

FULL = os.environ.get("LIMPID_SOAK") == "full"


@pytest.fixture(scope="session")
def full():
    """Whether everything is done as often as the promises say."""
    return FULL


@pytest.fixture
def start(tmp_path):
    """Starts servers that are gone after the test."""
    servers = []

    def start_one(**options):
        servers.append(Server(tmp_path / f"server{len(servers)}", **options))
        return servers[-1]

    yield start_one
    for one in servers:
        one.kill()


@pytest.fixture
def gateway(tmp_path):
    """gateway(server) stands before it and stops with the test."""
    gateways = []

    def start_one(server):
        gateways.append(Gateway(tmp_path, server))
        return gateways[-1]

    yield start_one
    for one in gateways:
        one.stop()


@pytest.fixture
def honest():
    """Honest(server) clients that stop with the test."""
    clients = []

    def make(server, **options):
        clients.append(Honest(server, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.stop()
