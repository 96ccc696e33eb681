# SPDX-License-Identifier: Apache-2.0
"""Hostile peers on the plain port, and what an honest client sees of them."""
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attacks import ATTACKS
from harness import MIB, ROOT, Watch, serves_new_connections, wait_for

SECONDS = 4  # of attack
QUIET = 3    # after which nothing may be lost any more
PROGRAM = Path(__file__).with_name("attacks.py")


# Those that reach past a gateway, or are aimed at what callers share there.
AT_THE_GATEWAY = (
    "bad_metadata", "cancel_storm", "compression_bombs", "continuation_flood",
    "empty_continuations", "hpack_bomb", "large_messages", "ping_flood",
    "rapid_reset", "rapid_reset_in_pieces", "rapid_reset_of_whole_requests",
    "settings_flood", "slow_headers", "streams_held_open", "unread_replies",
    "zero_windows")


class Attack:
    """An attacking process; ends with the block."""

    def __init__(self, name, where):
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, name, str(where.port)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == "on\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            # One that hangs in a socket is cut off, as attackers may be.
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def withstand(name, label, server, front, honest):
    """Attacks `front`, which is the server or stands before it."""
    client = honest(front, timeout=3)
    time.sleep(1)  # so that memory has reached its usual height
    begin = time.monotonic()
    with Watch(server) as watch:
        with Attack(name, front):
            time.sleep(max(0, begin + SECONDS - time.monotonic()))
        end = time.monotonic()
        # By then the calls that were begun during the attack have ended, too.
        time.sleep(QUIET + 2)
    during, after = client.during(begin, end), client.during(end + QUIET)
    serves_new_connections(front)
    print(f"figure: {label}: during {during}, afterwards {after}; memory "
          f"{watch.grown / MIB:+.0f} MiB at the peak, "
          f"{watch.left() / MIB:+.0f} afterwards; "
          f"{watch.more_threads:+d} threads")
    assert during.share >= 0.9, during
    assert during.served >= 5, during
    assert after.share == 1, after
    assert watch.grown <= 384 * MIB
    assert watch.more_threads <= 256
    # The allocator gives back with a delay.
    wait_for(lambda: watch.left() <= 64 * MIB, what="memory stays")


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_honest_client_is_served_beside(name, start, honest):
    server = start()
    withstand(name, name, server, server, honest)
    with Attack(name, server):
        status, took = server.terminate()
    print(f"figure: {name}: SIGTERM during it: exit {status} in {took:.1f} s")
    assert status == 0
    assert took < 15


@pytest.mark.parametrize("name", AT_THE_GATEWAY)
def test_honest_client_is_served_behind_the_gateway_beside(
        name, start, gateway, honest):
    text = (ROOT / "deploy" / "gateway" / "server.config.json").read_text()
    server = start(config=json.loads(re.sub(r"(?m)^\s*//.*$", "", text)))
    withstand(name, f"{name} at the gateway", server, gateway(server), honest)
