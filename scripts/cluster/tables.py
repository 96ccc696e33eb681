# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/scaling.md, from measured figures and parameters."""
import dataclasses
import json
import math
import pathlib
import statistics

import autoscaling
from queueing import Quantiles, simulate

ROOT = pathlib.Path(__file__).resolve().parents[2]
GPU_FIGURES = ROOT / "docs/bench/h100.jsonl"
CPU_FIGURES = ROOT / "docs/bench/scaling.json"
# Workloads on a GPU: lines of limpid_bench, explanations per line, and what a
# reply holds: layers and tokens of rows or matrices in float32.
GPU_WORKLOADS = (
    ("Mamba-130m, rows, L = 1024", "mamba-130m/rows/L=1024", 1,
     ("rows", 24, 1024)),
    ("Mamba-130m, matrices, L = 256", "mamba-130m/matrices/L=256", 1,
     ("matrices", 24, 256)),
    ("Mamba-130m, matrices, L = 1024", "mamba-130m/matrices/L=1024", 1,
     ("matrices", 24, 1024)),
    ("Mamba-130m, matrices, L = 4096", "mamba-130m/matrices/L=4096", 1,
     ("matrices", 24, 4096)),
    ("RWKV-4-169m, matrices, L = 1024", "rwkv-4-169m/matrices/L=1024", 1,
     ("matrices", 12, 1024)),
    ("Vision Mamba small, matrices", "vim-small/matrices/L=197/B=16", 16,
     ("matrices", 24, 197)),
)
CPU_WORKLOADS = {
    "small": "all embedded text models, rows, L = 8, 32, 128",
    "text-512": "`sentiment-mamba`, rows, L = 512",
    "gradients-128": "`sentiment-mamba`, integrated gradients, L = 128",
}


@dataclasses.dataclass(frozen=True)
class Parameters:
    gpu_hour: float = 3.0  # price of a GPU with its share of the host
    core_hour: float = 0.04
    nic_gbit: float = 25.0
    utilisation: float = 0.7
    requests: int = 100_000  # of each simulation
    seed: int = 1


def reply_bytes(kind, layers, tokens):
    """Tensors of a reply: attention in float32, attribution, token ids."""
    attention = layers * tokens * (tokens if kind == "matrices" else 1)
    return 4 * attention + 4 * tokens + 8 * tokens


def read_gpu():
    lines = [json.loads(line) for line in GPU_FIGURES.read_text().splitlines()]
    by_op = {line["op"]: line for line in lines}
    return [(name, by_op[op]["ms"] / per_line, reply_bytes(*reply))
            for name, op, per_line, reply in GPU_WORKLOADS], lines[0]["device"]


def number(value, digits=3):
    """With so many significant digits, and thousands set apart."""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{round(value, places):,.{places}f}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |"
                              for row in rows])


def seconds(value):
    return f"{number(1e3 * value)} ms" if value < 1 else f"{number(value)} s"


class Figures:
    def __init__(self):
        self.gpu, self.gpu_name = read_gpu()
        self.cpu = json.loads(CPU_FIGURES.read_text())

    def service(self, workload="small"):
        kinds = self.cpu["workloads"][workload]["server_ms_by_kind"]
        return Quantiles([ms / 1e3 for ms in kinds + kinds[-1:]])

    def units(self):
        """(name, unit, explanations per second and unit, reply bytes)."""
        for name, ms, size in self.gpu:
            yield name, "GPU", 1e3 / ms, size
        for key, name in CPU_WORKLOADS.items():
            yield (name, "core", 1e3 / self.cpu["workloads"][key]["server_ms"],
                   None)

    def gateway_line(self):
        """Least squares of the gateway's processor time: (milliseconds of a
        reply, milliseconds of a megabyte of tensors)."""
        points = [(row["tensor_bytes"] / 1e6, row["gateway_ms"])
                  for row in self.cpu["gateway"]]
        slope, at_zero = statistics.linear_regression(*zip(*points))
        return at_zero, slope


def capacity(figures, parameters):
    rates = (10, 100, 1000, 10_000)
    return table(
        ["work", "unit", "per second", *(f"{rate:,}/s" for rate in rates)],
        [[name, unit, number(per_second),
          *(f"{math.ceil(rate / per_second / parameters.utilisation):,}"
            for rate in rates)]
         for name, unit, per_second, _ in figures.units()])


def cost(figures, parameters):
    prices = {"GPU": parameters.gpu_hour, "core": parameters.core_hour}
    return table(
        ["work", "price of a million", "at full use"],
        [[name, number(whole / parameters.utilisation), number(whole)]
         for name, unit, per_second, _ in figures.units()
         for whole in [prices[unit] / 3600 / per_second * 1e6]])


def gateway(figures, parameters):
    small = figures.cpu["small_through_gateway"]
    rows = [["gRPC, small replies", "–", "–", number(small["gateway_ms"])]]
    for row in figures.cpu["gateway"]:
        rows.append(["JSON", number(row["tensor_bytes"] / 1e6),
                     number(row["json_bytes"] / 1e6),
                     number(row["gateway_ms"])])
    return table(["protocol", "MB of tensors", "MB of JSON",
                  "ms of a gateway's core"], rows)


def limits(figures, parameters):
    fixed, per_megabyte = figures.gateway_line()
    nic = parameters.nic_gbit * 1e9 / 8
    rows = []
    for name, unit, per_second, size in figures.units():
        if size is None:
            continue
        gateway_core = 1e3 / (fixed + per_megabyte * size / 1e6)
        rows.append([name, number(size / 1e6), number(per_second),
                     number(nic / size), number(gateway_core),
                     number(per_second / gateway_core, 2),
                     number(nic / size / per_second, 2)])
    return table(["work", "MB a reply", "per GPU and s", "per NIC and s",
                  "JSON per gateway core and s", "gateway cores per GPU",
                  "GPUs per NIC"], rows)


def balancing(figures, parameters):
    service = figures.service()
    workers = figures.cpu["cores"]
    rows = []
    for replicas in (1, 2, 5, 10, 30, 100, 300, 1000):
        row = [f"{replicas:,}"]
        for utilisation, gateways in ((0.5, 1), (0.7, 1), (0.9, 1), (0.9, 8)):
            served = simulate(service, replicas=replicas, workers=workers,
                              utilisation=utilisation, gateways=gateways,
                              requests=parameters.requests,
                              seed=parameters.seed)
            row.append(f"{seconds(served.mean_wait)}, "
                       f"{seconds(served.wait(0.99))}")
        rows.append(row)
    return table(["replicas", "50 % busy", "70 %", "90 %",
                  "90 %, 8 gateways"], rows)


def autoscaled(figures, parameters):
    service = figures.service("text-512")
    workers = figures.cpu["cores"]
    per_pod = workers / service.mean
    rows = []
    for metric, target in (("requests-in-flight", 8.0), ("queue-seconds", 0.2)):
        for start in (figures.cpu["start_seconds"] + 2, 60, 180):
            loop = autoscaling.Loop(metric=metric, target=target, start=start)
            outcome = autoscaling.run(
                loop, service, workers=workers, before=per_pod,
                after=4 * per_pod, seed=parameters.seed)
            first = next((time - 300 for time, _ in outcome.replicas
                          if time > 300), None)
            settled = outcome.settled(300, 0.2)
            served, refused = (
                sum(time >= 300 for time in times) for times in
                (outcome.served.arrivals, outcome.served.refused))
            rows.append(
                [metric, number(start, 2),
                 "never" if first is None else f"{first:.0f} s",
                 "not within 10 min" if settled is None else f"{settled:.0f} s",
                 outcome.replicas[-1][1],
                 seconds(outcome.served.wait(0.99)),
                 f"{100 * refused / (served + refused):.1f} %"])
    return table(["metric", "a pod starts in (s)", "first new pod after",
                  "waits below 0.2 s after", "pods at the end", "p99 wait",
                  "refused after the step"], rows)


TABLES = {"capacity": capacity, "limits": limits, "gateway": gateway,
          "balancing": balancing, "autoscaling": autoscaled, "cost": cost}


def write(document, tables):
    """Replaces what stands between the markers of each table."""
    text = document.read_text()
    for name, content in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"{document} lacks the markers of {name}")
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    document.write_text(text)
