# SPDX-License-Identifier: Apache-2.0
"""Times what others would use for the work of limpid_bench, as the last part of
its run (`limpid_bench --peers`): reads the lines of FILE, adds those of peers.

Peers of one Mamba layer's mean-abs matrix: PyTorch, eager and vectorised over
channels, states, rows and columns; and the triple loop of the paper authors'
code, implemented anew. Peer of the forward pass: Hugging Face transformers
without compiled extensions. All on the CPU with random weights of the shape of
mamba-130m. One JSON line for each peer of a line there is: both times and their
ratio.
"""

import argparse
import json
import pathlib
import statistics
import time

import torch
import transformers

CHANNELS, STATES, TAPS = 1536, 16, 4


class Layer:
    """Frozen factors of one layer at one input of some length."""

    def __init__(self, length, channels=CHANNELS, states=STATES, taps=TAPS):
        generator = torch.Generator().manual_seed(1)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        self.length = length
        self.delta = torch.nn.functional.softplus(normal(length, channels) - 4)
        self.a = -torch.arange(1.0, states + 1).repeat(channels, 1)
        self.b = normal(length, states)
        self.c = normal(length, states)
        self.skip = torch.ones(channels)
        self.ratio = torch.sigmoid(normal(length, channels))
        self.taps = normal(channels, taps) / taps
        self.gate = torch.nn.functional.silu(normal(length, channels))


def around(layer, entries, begin, end):
    """Skip, activation, convolution and gate around entries [channels, L, L]."""
    length = layer.length
    entries = entries + torch.diag_embed(
        layer.skip[begin:end, None].expand(-1, length)
    )
    entries = entries * layer.ratio.T[begin:end, None, :]
    convolved = torch.zeros_like(entries)
    for d in range(layer.taps.shape[1]):
        tap = layer.taps[begin:end, -1 - d, None, None]
        convolved[:, :, : length - d] += tap * entries[:, :, d:]
    return convolved * layer.gate.T[begin:end, :, None]


def eager_matrix(layer, channels_at_once=32):
    """Mean over channels of |alpha|, [L, L]: differences first, then exp."""
    sums = layer.delta.double().cumsum(0)
    total = torch.zeros(layer.length, layer.length)
    channels = layer.a.shape[0]
    for begin in range(0, channels, channels_at_once):
        end = min(channels, begin + channels_at_once)
        sums_t = sums.T[begin:end]
        gaps = (sums_t[:, :, None] - sums_t[:, None, :]).float()
        lower = torch.ones(layer.length, layer.length, dtype=bool).tril()
        gaps = gaps.masked_fill(~lower, float("inf"))
        decays = torch.exp(layer.a[begin:end, :, None, None] * gaps[:, None])
        keys = layer.delta.T[begin:end, None] * layer.b.T[None]
        entries = (
            layer.c.T[None, :, :, None] * decays * keys[:, :, None, :]
        ).sum(1)
        total += around(layer, entries, begin, end).abs().sum(0)
    return total / channels


def loops_matrix(layer):
    """The same by a loop over rows, columns and the positions in between."""
    length, (channels, states) = layer.length, layer.a.shape
    decays = torch.exp(layer.delta[:, :, None] * layer.a)
    keys = layer.delta[:, :, None] * layer.b[:, None, :]
    entries = torch.zeros(channels, length, length)
    for row in range(length):
        for column in range(row + 1):
            product = torch.ones(channels, states)
            for i in range(column + 1, row + 1):
                product = product * decays[i]
            entries[:, row, column] = (
                layer.c[row] * product * keys[column]
            ).sum(-1)
    return around(layer, entries, 0, channels).abs().mean(0)


def hugging_face_forward(length):
    """A forward pass with the logits of the last position."""
    config = transformers.MambaConfig(
        vocab_size=50280, hidden_size=768, state_size=STATES, num_hidden_layers=24
    )
    torch.manual_seed(1)
    model = transformers.MambaForCausalLM(config).eval()
    ids = torch.randint(config.vocab_size, (1, length))

    def run():
        with torch.inference_mode():
            hidden = model.backbone(ids, use_cache=False).last_hidden_state
            model.lm_head(hidden[:, -1:])

    return run


def milliseconds(work, repeats):
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), min(times), max(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="of each peer")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    small = Layer(12, channels=5, states=3)
    torch.testing.assert_close(eager_matrix(small), loops_matrix(small))

    eager = f"PyTorch {torch.__version__}, eager, vectorised"
    hugging_face = f"Hugging Face transformers {transformers.__version__}"
    layer = Layer(256)
    short = Layer(64)
    peers = [
        ("mamba-130m-layer/matrices/L=256", eager, lambda: eager_matrix(layer)),
        (
            "mamba-130m-layer/matrices/L=64",
            "the paper authors' loops, implemented anew",
            lambda: loops_matrix(short),
        ),
        ("mamba-130m/forward/L=256", hugging_face, hugging_face_forward(256)),
    ]
    ours = {line["op"]: line
            for line in map(json.loads, options.file.read_text().splitlines())}
    print(f"{'peer':70} {'median ms':>10} {'Limpid':>10} {'ratio':>7}")
    for op, name, work in peers:
        if op not in ours:
            continue
        with torch.inference_mode():
            median, least, most = milliseconds(work, options.repeats)
        # Of matrices what they take beside the forward pass, as of the peer.
        own = ours[op]["added_ms"]
        line = {
            "op": op,
            "peer": name,
            "device": ours[op]["device"],
            "threads": options.threads,
            "peer_ms": round(median, 3),
            "peer_ms_least": round(least, 3),
            "peer_ms_most": round(most, 3),
            "limpid_ms": own,
            "ratio": round(median / own, 1),
        }
        with options.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{op + ': ' + name:70.70} {median:10.1f} {own:10.1f} "
              f"{line['ratio']:6.1f}x", flush=True)


if __name__ == "__main__":
    main()
