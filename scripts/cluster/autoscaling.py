# SPDX-License-Identifier: Apache-2.0
"""Replicas under a HorizontalPodAutoscaler, as the Helm chart sets it, while the
load makes a step.

What lies between a longer queue and another pod that serves: the scrape, the
window of the rate, the autoscaler's own period, its policy of growth, and the
time that a pod takes to start. Each is a field of Loop; the times of starting
are measured ones or parameters, the rest is what deploy/helm/limpid and
Kubernetes' defaults say.
"""
import collections
import dataclasses
import heapq
import math
import random

from queueing import Cluster, step_rate


@dataclasses.dataclass(frozen=True)
class Loop:
    metric: str = "requests-in-flight"  # or queue-seconds
    target: float = 8
    min_replicas: int = 2
    max_replicas: int = 10
    scrape: float = 15  # serviceMonitor.interval
    window: float = 120  # of the rate of queue-seconds
    period: float = 15  # of the autoscaler
    tolerance: float = 0.1
    growth: float = 1.0  # policy: Percent 100 ...
    growth_period: float = 30  # ... in so many seconds
    start: float = 10  # from the decision to a pod that serves


def desired(loop, ready, pending, sample):
    """What the autoscaler asks for, before its policies. A pod that is not ready
    counts as one without load, and then the answer is never a smaller number."""
    current = ready + pending
    ratio = sample / loop.target
    if abs(ratio - 1) <= loop.tolerance:
        return current
    if pending and ratio > 1:
        ratio = ratio * ready / current
        if ratio <= 1 + loop.tolerance:
            return current
    return math.ceil(ratio * current) if ratio > 1 else current


class Metric:
    """The autoscaler's figure, per ready pod, of scrapes."""

    def __init__(self, loop):
        self.loop = loop
        self.scrapes = collections.deque()  # (time, sum of waits, count, flight)

    def scrape(self, now, waited, count, in_flight):
        self.scrapes.append((now, waited, count, in_flight))
        while self.scrapes[0][0] < now - self.loop.window:
            self.scrapes.popleft()

    def per_pod(self, ready):
        if not self.scrapes:
            return 0.0
        last = self.scrapes[-1]
        if self.loop.metric == "requests-in-flight":
            return last[3] / ready
        first = self.scrapes[0]
        count = last[2] - first[2]
        return (last[1] - first[1]) / count if count else 0.0


@dataclasses.dataclass
class Outcome:
    served: object
    replicas: list  # (time, pods that serve)

    def settled(self, before, limit, interval=10.0):
        """Seconds from the step until waits stay below the limit (the mean of
        each interval); None if they do not."""
        waits = collections.defaultdict(list)
        for arrival, wait in zip(self.served.arrivals, self.served.waits):
            if arrival >= before:
                waits[int((arrival - before) // interval)].append(wait)
        late = [i for i, some in waits.items() if sum(some) / len(some) > limit]
        if not late:
            return 0.0
        return None if max(late) == max(waits) else (max(late) + 1) * interval


def run(loop, service, *, workers, before, after, step_at=300.0, until=900.0,
        max_waiting=256, seed=1):
    """Load of `before` requests per second, from step_at on of `after`."""
    rng = random.Random(seed)
    cluster = Cluster(rng, loop.min_replicas, workers, max_waiting=max_waiting)
    metric = Metric(loop)
    pending = []  # when each pod that was asked for will serve
    grown = collections.deque()  # (time, pods asked for), for the policy
    timeline = [(0.0, loop.min_replicas)]
    waited, count = 0.0, 0
    waiting = []  # heap of (start of the work, wait): then the wait is counted
    next_scrape, next_period = loop.scrape, loop.period
    steps = [(0.0, before), (step_at, after)]
    now = 0.0
    while now < until:
        now += rng.expovariate(step_rate(steps, now))
        while min(next_scrape, next_period, *pending) <= now:
            event = min(next_scrape, next_period, *pending)
            cluster.advance(event)
            if pending and event == min(pending):
                pending.remove(event)
                cluster.add_replica(event)
                timeline.append((event, len(cluster.total)))
            elif event == next_scrape:
                while waiting and waiting[0][0] <= event:
                    waited += heapq.heappop(waiting)[1]
                    count += 1
                metric.scrape(event, waited, count, len(cluster.ends))
                next_scrape += loop.scrape
            else:
                ready = len(cluster.total)
                asked = desired(loop, ready, len(pending), metric.per_pod(ready))
                while grown and grown[0][0] <= event - loop.growth_period:
                    grown.popleft()
                current = ready + len(pending)
                base = current - sum(number for _, number in grown)
                most = math.ceil(base * (1 + loop.growth))
                asked = min(asked, most, loop.max_replicas)
                if asked > current:
                    grown.append((event, asked - current))
                    pending += [event + loop.start] * (asked - current)
                next_period += loop.period
        wait = cluster.arrive(now, service(rng))
        if wait is not None:
            heapq.heappush(waiting, (now + wait, wait))
    return Outcome(cluster.served, timeline)
