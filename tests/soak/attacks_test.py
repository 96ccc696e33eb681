# SPDX-License-Identifier: Apache-2.0
"""Hostile peers on the plain port, and what an honest client sees of them."""
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attacks import ATTACKS
from harness import MIB, Watch, serves_new_connections, wait_for

SECONDS = 4  # of attack
QUIET = 3    # after which nothing may be lost any more
PROGRAM = Path(__file__).with_name("attacks.py")


class Attack:
    """An attacking process; ends with the block."""

    def __init__(self, name, server):
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM, name, str(server.port)], text=True,
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


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_honest_client_is_served_beside(name, start, honest):
    server = start()
    client = honest(server, timeout=3)
    time.sleep(1)  # so that memory has reached its usual height
    begin = time.monotonic()
    with Watch(server) as watch:
        with Attack(name, server):
            time.sleep(max(0, begin + SECONDS - time.monotonic()))
        end = time.monotonic()
        # By then the calls that were begun during the attack have ended, too.
        time.sleep(QUIET + 2)
    during, after = client.during(begin, end), client.during(end + QUIET)
    serves_new_connections(server)
    print(f"figure: {name}: during {during}, afterwards {after}; memory "
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
    with Attack(name, server):
        status, took = server.terminate()
    print(f"figure: {name}: SIGTERM during it: exit {status} in {took:.1f} s")
    assert status == 0
    assert took < 15
