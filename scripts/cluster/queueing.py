# SPDX-License-Identifier: Apache-2.0
"""Simulation of replicas behind Envoy's least-request balancing, and the closed
forms that it is held to where there are some.

Times are seconds. A replica has `workers` that take waiting requests in the
order of their arrival. A gateway sends a request to whichever of two replicas,
drawn at random, has fewer requests of this gateway in flight (Envoy's
LEAST_REQUEST with equal weights); gateways know nothing of each other's.
"""
import bisect
import dataclasses
import heapq
import itertools
import math
import random


class Quantiles:
    """Times drawn from measured quantiles at even distances (least, ...,
    greatest), linear in between."""

    def __init__(self, values):
        self.values = sorted(values)
        if len(self.values) < 2:
            raise ValueError("two quantiles or more are needed")

    def __call__(self, rng):
        place = rng.random() * (len(self.values) - 1)
        below = int(place)
        return self.values[below] + (place - below) * (
            self.values[below + 1] - self.values[below])

    def _moment(self, of_segment):
        pairs = list(itertools.pairwise(self.values))
        return sum(of_segment(a, b) for a, b in pairs) / len(pairs)

    @property
    def mean(self):
        return self._moment(lambda a, b: (a + b) / 2)

    @property
    def mean_square(self):
        return self._moment(lambda a, b: (a * a + a * b + b * b) / 3)

    @property
    def variation(self):
        """Standard deviation by mean."""
        return math.sqrt(max(0.0, self.mean_square / self.mean ** 2 - 1))


@dataclasses.dataclass
class Served:
    """What became of the requests of a run."""
    waits: list = dataclasses.field(default_factory=list)  # of those served
    arrivals: list = dataclasses.field(default_factory=list)  # likewise
    refused: list = dataclasses.field(default_factory=list)  # arrival times

    def wait(self, share):
        """The least wait that the share of requests does not exceed."""
        ordered = sorted(self.waits)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    @property
    def mean_wait(self):
        return sum(self.waits) / len(self.waits)


class Cluster:
    """Replicas that can be added; requests come in the order of their times."""

    def __init__(self, rng, replicas, workers=1, gateways=1, max_waiting=None):
        self.rng = rng
        self.workers = workers
        self.max_waiting = max_waiting
        self.free_at = []  # of each replica, a heap of its workers' times
        self.in_flight = [[] for _ in range(gateways)]  # by gateway and replica
        self.total = []  # in flight by replica
        self.ends = []  # heap of (time, gateway, replica)
        self.served = Served()
        for _ in range(replicas):
            self.add_replica(0.0)

    def add_replica(self, now):
        self.free_at.append([now] * self.workers)
        self.total.append(0)
        for counts in self.in_flight:
            counts.append(0)

    def advance(self, now):
        """Requests that have ended by now leave."""
        while self.ends and self.ends[0][0] <= now:
            _, gateway, replica = heapq.heappop(self.ends)
            self.in_flight[gateway][replica] -= 1
            self.total[replica] -= 1

    def choose(self, gateway):
        size = len(self.total)
        if size == 1:
            return 0
        counts = self.in_flight[gateway]
        one = int(self.rng.random() * size)
        other = int(self.rng.random() * (size - 1))
        other += other >= one
        return one if counts[one] <= counts[other] else other

    def arrive(self, now, service_time):
        """Returns the wait, or None if the replica's queue was full."""
        self.advance(now)
        gateway = 0
        if len(self.in_flight) > 1:
            gateway = int(self.rng.random() * len(self.in_flight))
        replica = self.choose(gateway)
        if (self.max_waiting is not None and
                self.total[replica] - self.workers >= self.max_waiting):
            self.served.refused.append(now)
            return None
        start = max(now, self.free_at[replica][0])
        end = start + service_time
        heapq.heapreplace(self.free_at[replica], end)
        self.in_flight[gateway][replica] += 1
        self.total[replica] += 1
        heapq.heappush(self.ends, (end, gateway, replica))
        self.served.waits.append(start - now)
        self.served.arrivals.append(now)
        return start - now


def simulate(service, *, replicas, utilisation, requests, workers=1, gateways=1,
             max_waiting=None, seed=1):
    """Poisson arrivals that keep the workers busy for the given share of the
    time. The first tenth of the requests, which find an emptier system than the
    rest, is left out. `service` has a mean and draws a time when called."""
    rng = random.Random(seed)
    cluster = Cluster(rng, replicas, workers, gateways, max_waiting)
    rate = utilisation * replicas * workers / service.mean
    now, warm = 0.0, requests // 10
    for index in range(requests + warm):
        now += rng.expovariate(rate)
        if index == warm:
            cluster.served = Served()
        cluster.arrive(now, service(rng))
    return cluster.served


# -- Closed forms: mean waits in the queue -------------------------------------
def mg1_wait(rate, mean, mean_square):
    """One server, any service times (Pollaczek and Khinchine)."""
    return rate * mean_square / (2 * (1 - rate * mean))


def mmc_wait(rate, mean, servers):
    """Several servers with one queue, exponential times (Erlang C)."""
    offered = rate * mean
    term, below = 1.0, 1.0  # offered^k / k! and its sum for k < servers
    for k in range(1, servers):
        term *= offered / k
        below += term
    last = term * offered / servers / (1 - offered / servers)
    return last / (below + last) * mean / (servers - offered)


def two_choices_wait(utilisation, mean):
    """Infinitely many replicas with one worker each, the better of two chosen,
    exponential times (Mitzenmacher's supermarket model)."""
    in_system = sum(utilisation ** (2 ** level - 1) for level in range(1, 20))
    return mean * (in_system / utilisation - 1)


class Exponential:
    """Service times without memory, for the comparison with closed forms."""

    def __init__(self, mean):
        self.mean = mean

    def __call__(self, rng):
        return rng.expovariate(1 / self.mean)


class Constant:
    def __init__(self, mean):
        self.mean = mean

    def __call__(self, rng):
        return self.mean


def step_rate(steps, now):
    """The rate at a time, of pairs (from when on, rate) in order."""
    return steps[bisect.bisect_right(steps, (now, math.inf)) - 1][1]
