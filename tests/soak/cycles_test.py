# SPDX-License-Identifier: Apache-2.0
"""Memory after many loads and many requests. The allocator is given a moment to
give back what is free."""
import json
import subprocess
import time

from harness import BUILD, MIB, explain_once, explain_request, model_call


def lowest_resident(server, seconds=5):
    """The least that is resident within the next seconds."""
    lowest, end = server.resident_bytes(), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
        lowest = min(lowest, server.resident_bytes())
    return lowest


def test_loads_and_unloads_leave_no_memory(start, full):
    server = start(models=("recall-mamba", "sentiment-mamba"))
    count, first = 1000 if full else 100, 20
    with server.channel() as channel:
        for i in range(count + first):
            # What is made once, such as threads' buffers, is there by now.
            if i == first:
                before = lowest_resident(server)
            model_call(channel, "Unload", "sentiment-mamba")
            model_call(channel, "Load", "sentiment-mamba")
            explain_once(channel, explain_request("sentiment-mamba"))
    grown = lowest_resident(server) - before
    print(f"figure: {count} load/explain/unload cycles: resident memory "
          f"{grown / MIB:+.1f} MiB")
    assert grown < 16 * MIB


def bench(server, *flags):
    done = subprocess.run(
        [BUILD / "bin" / "limpid", "--server", server.address, "bench",
         "--json", *map(str, flags)], capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_many_requests_leave_no_memory(start, full):
    server = start(models=("recall-mamba", "recall-rwkv4"))
    wanted = 200000 if full else 10000
    bench(server, "--clients", 2, "--lengths", "4,8", "--duration", "5s")
    before, served = lowest_resident(server), 0
    while served < wanted:
        status, result = bench(server, "--clients", 2, "--lengths", "4,8",
                               "--duration", "10s", "--seed", served + 2)
        assert status == 0, result
        served += result["ok"]
    grown = lowest_resident(server) - before
    print(f"figure: {served} requests: resident memory {grown / MIB:+.1f} MiB")
    assert grown < 32 * MIB


def test_load_below_and_above_the_capacity(start, full):
    """Long inputs, so that the two cores are the server's and not those of
    whoever asks. What else the machine does moves its capacity by more than is
    promised, so that pieces of load and of measuring it take turns."""
    server = start(models=("sentiment-mamba",),
                   config={"limits": {"max_client_queue_size": 32}})
    for percent, pieces, seconds in ((80, 20, 30), (300, 20, 30)) if full else (
            (80, 5, 5), (300, 20, 2.5)):
        shape = ("--lengths", 2048, "--clients", 8, "--duration", f"{seconds}s")
        capacities, rates, refused, slowest = [], [], 0, 0

        def measure(piece):
            status, result = bench(server, *shape, "--seed", piece + 1)
            assert status == 0, result
            capacities.append(result["throughput_per_second"])

        for piece in range(pieces):
            # Which of the two comes first changes: a drift counts for neither.
            if piece % 2 == 0:
                measure(piece)
            status, result = bench(
                server, *shape, "--seed", piece + 1, "--rate",
                sum(capacities) / len(capacities) * percent / 100)
            assert status == 0, result
            assert result["refused"] == result["refused_with_retry_info"]
            rates.append(result["throughput_per_second"])
            refused += result["refused"]
            slowest = max(slowest, result["refusal_ms"]["p99"])
            if percent == 300:
                assert result["refused"] > 0
                assert result["refusal_ms"]["p50"] < 50
            if piece % 2 == 1:
                measure(piece)
        rate, capacity = sum(rates) / pieces, sum(capacities) / pieces
        print(f"figure: {percent} % of the capacity, {pieces} times {seconds} s "
              f"in turn with measuring it: {rate:.1f}/s served, capacity "
              f"{capacity:.1f}/s ({min(capacities):.1f} to "
              f"{max(capacities):.1f}); {refused} refused, p99 of them at most "
              f"{slowest:.0f} ms; none wrong, none lost")
        if percent == 300:
            assert rate >= 0.9 * capacity
