# SPDX-License-Identifier: Apache-2.0
"""scripts/scaling: its simulations against what is known without them, and
docs/scaling.md against its output."""
import re
import subprocess
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts/cluster"))
import autoscaling  # noqa: E402
import queueing  # noqa: E402
import tables  # noqa: E402

REQUESTS = 100_000


def mean_wait(service, **options):
    return queueing.simulate(service, requests=REQUESTS, **options).mean_wait


# Tolerances are about three standard deviations of the simulated mean, which is
# what correlated waits leave of 100,000 requests.
@pytest.mark.parametrize("load,tolerance", [(0.3, 0.03), (0.5, 0.03),
                                            (0.7, 0.08), (0.8, 0.15)])
def test_one_server_waits_as_pollaczek_and_khinchine_say(load, tolerance):
    measured = queueing.Quantiles([1, 2, 2, 3, 10])
    for service, square in ((queueing.Exponential(2.0), 8.0),
                            (queueing.Constant(2.0), 4.0),
                            (measured, measured.mean_square)):
        expected = queueing.mg1_wait(load / service.mean, service.mean, square)
        found = mean_wait(service, replicas=1, utilisation=load)
        assert found == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("servers", [2, 8])
def test_several_workers_wait_as_erlang_says(servers):
    expected = queueing.mmc_wait(0.7 * servers, 1.0, servers)
    found = mean_wait(queueing.Exponential(1.0), replicas=1, workers=servers,
                      utilisation=0.7)
    assert found == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("load", [0.5, 0.9])
def test_many_replicas_wait_as_the_supermarket_model_says(load):
    expected = queueing.two_choices_wait(load, 1.0)
    found = mean_wait(queueing.Exponential(1.0), replicas=500,
                      utilisation=load)
    assert found == pytest.approx(expected, rel=0.05)
    # And not as one who draws blindly.
    assert found < queueing.mg1_wait(load, 1.0, 2.0) / 2


def test_gateways_that_see_a_part_balance_worse():
    waits = [mean_wait(queueing.Exponential(1.0), replicas=50, utilisation=0.9,
                       gateways=gateways) for gateways in (1, 4, 50)]
    assert waits == sorted(waits)
    assert waits[-1] > 1.5 * waits[0]


def test_quantiles_have_the_moments_of_what_they_draw():
    import random
    service = queueing.Quantiles([0, 1, 4])
    rng = random.Random(5)
    drawn = [service(rng) for _ in range(100_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(service.mean, rel=0.01)
    assert sum(x * x for x in drawn) / len(drawn) == pytest.approx(
        service.mean_square, rel=0.02)


def test_full_queues_refuse():
    served = queueing.simulate(queueing.Constant(1.0), replicas=1,
                               utilisation=2.0, requests=2000, max_waiting=10)
    assert len(served.refused) == pytest.approx(1000, rel=0.1)
    assert max(served.waits) <= 11


def scaled(**changes):
    loop = autoscaling.Loop(**{"start": 20, **changes})
    return autoscaling.run(loop, queueing.Constant(0.05), workers=2,
                           before=20, after=160, until=700)


def test_autoscaler_grows_with_the_load_and_not_beyond():
    outcome = scaled(target=4, max_replicas=10)
    assert outcome.replicas[0] == (0.0, 2)
    grown = [time for time, _ in outcome.replicas[1:]]
    # Not before the step, a scrape and the pod's start.
    assert 320 < grown[0] <= 300 + 15 + 15 + 20
    # 160 per second at 40 per pod and second need more than 4.
    assert 5 <= outcome.replicas[-1][1] <= 10
    assert outcome.settled(300, 0.1) < 200
    # At most double within 30 seconds.
    first_wave = [number for time, number in outcome.replicas
                  if time <= grown[0] + 0.01]
    assert first_wave[-1] <= 4


def test_slower_pods_settle_later():
    fast, slow = scaled(target=4), scaled(target=4, start=120)
    assert slow.settled(300, 0.1) > fast.settled(300, 0.1) + 60


def test_autoscaler_stays_within_its_limits():
    assert scaled(target=4, max_replicas=3).replicas[-1][1] == 3
    # Within the tolerance nothing changes.
    loop = autoscaling.Loop(target=4)
    assert autoscaling.desired(loop, 3, 0, 4.3) == 3
    assert autoscaling.desired(loop, 3, 0, 8) == 6
    # Pods that are not ready count as idle.
    assert autoscaling.desired(loop, 3, 3, 8) == 6
    assert autoscaling.desired(loop, 3, 3, 16) == 12


def test_the_page_has_the_commands_output():
    page = (ROOT / "docs/scaling.md").read_text()
    # The tables that need no long simulation; the others below, smaller.
    done = subprocess.run(
        [ROOT / "scripts/scaling", *(word for name in tables.TABLES
                                     if name not in ("balancing",
                                                     "autoscaling")
                                     for word in ("--table", name))],
        capture_output=True, text=True, check=True)
    for name in tables.TABLES:
        block = re.search(rf"<!-- {name}: begin -->\n(.*?)\n<!-- {name}: end",
                          page, re.S)
        assert block and block[1].count("\n") >= 4, name
        if name not in ("balancing", "autoscaling"):
            assert block[1] in done.stdout, f"{name}: scripts/scaling --write"


def test_prices_are_parameters():
    def price(hour):
        done = subprocess.run([ROOT / "scripts/scaling", "--table", "cost",
                               "--gpu-hour", hour],
                              capture_output=True, text=True, check=True)
        row = next(line for line in done.stdout.splitlines() if "rows" in line)
        return float(row.split("|")[2].replace(",", ""))
    assert price("6") == pytest.approx(2 * price("3"), rel=0.01)
