# SPDX-License-Identifier: Apache-2.0
"""Times what others would use for the work of limpid_bench, in its run
(`limpid_bench --peers`): reads the lines of FILE, adds those of peers.

Peers of one Mamba layer's mean-abs matrix: PyTorch, eager and vectorised over
channels, states, rows and columns; the same through torch.compile; and the
triple loop of the paper authors' code, implemented anew. Peer of the forward
pass: Hugging Face transformers without compiled extensions. On the device of
the run, with random weights of the shape of mamba-130m. One JSON line for each
peer of a line there is: both times and their ratio. What does not run on this
machine (transformers that are not installed, torch.compile without a compiler)
is said and left out.
"""

import argparse
import json
import pathlib
import statistics
import time

import torch

try:
    import transformers
except ImportError:
    transformers = None

CHANNELS, STATES, TAPS = 1536, 16, 4


class Layer:
    """Frozen factors of one layer at one input of some length."""

    def __init__(self, length, device="cpu", channels=CHANNELS, states=STATES,
                 taps=TAPS):
        generator = torch.Generator().manual_seed(1)

        def normal(*shape):
            return torch.randn(*shape, generator=generator).to(device)

        self.length = length
        self.delta = torch.nn.functional.softplus(normal(channels, length) - 4)
        self.a = -torch.arange(1.0, states + 1, device=device).repeat(channels,
                                                                      1)
        self.b = normal(states, length)
        self.c = normal(states, length)
        self.skip = torch.ones(channels, device=device)
        self.ratio = torch.sigmoid(normal(channels, length))
        self.taps = normal(channels, taps) / taps
        self.gate = torch.nn.functional.silu(normal(channels, length))

    def channels(self, begin, end):
        """Arguments of folded()."""
        own = (self.delta, self.a, self.skip, self.ratio, self.taps, self.gate)
        return [each[begin:end] for each in own] + [self.b, self.c]


def around(entries, skip, ratio, taps, gate):
    """Skip, activation, convolution and gate around entries [channels, L, L]."""
    length = entries.shape[-1]
    entries = entries + torch.diag_embed(skip[:, None].expand(-1, length))
    entries = entries * ratio[:, None, :]
    convolved = torch.zeros_like(entries)
    for d in range(taps.shape[1]):
        convolved[:, :, : length - d] += (
            taps[:, -1 - d, None, None] * entries[:, :, d:]
        )
    return convolved * gate[:, :, None]


def folded(delta, a, skip, ratio, taps, gate, b, c):
    """Sum over channels of |alpha|, [L, L]: differences first, then exp."""
    length = delta.shape[1]
    sums = delta.double().cumsum(1)
    gaps = (sums[:, :, None] - sums[:, None, :]).float()
    lower = torch.ones(length, length, dtype=bool, device=delta.device).tril()
    gaps = gaps.masked_fill(~lower, float("inf"))
    decays = torch.exp(a[:, :, None, None] * gaps[:, None])
    keys = delta[:, None] * b[None]
    entries = (c[None, :, :, None] * decays * keys[:, :, None, :]).sum(1)
    return around(entries, skip, ratio, taps, gate).abs().sum(0)


def folded_matrix(layer, fold=folded, channels_at_once=32):
    """Mean over channels of |alpha|, some channels at a time."""
    total = torch.zeros(layer.length, layer.length, device=layer.a.device)
    channels = layer.a.shape[0]
    for begin in range(0, channels, channels_at_once):
        total += fold(*layer.channels(begin,
                                      min(channels, begin + channels_at_once)))
    return total / channels


def loops_matrix(layer):
    """The same by a loop over rows, columns and the positions in between."""
    length, (channels, states) = layer.length, layer.a.shape
    decays = torch.exp(layer.delta.T[:, :, None] * layer.a)
    keys = layer.delta.T[:, :, None] * layer.b.T[:, None, :]
    entries = torch.zeros(channels, length, length, device=layer.a.device)
    for row in range(length):
        for column in range(row + 1):
            product = torch.ones(channels, states, device=layer.a.device)
            for i in range(column + 1, row + 1):
                product = product * decays[i]
            entries[:, row, column] = (
                layer.c[:, row] * product * keys[column]
            ).sum(-1)
    entries = around(entries, layer.skip, layer.ratio, layer.taps, layer.gate)
    return entries.abs().mean(0)


def hugging_face_forward(length, device):
    """A forward pass with the logits of the last position."""
    config = transformers.MambaConfig(
        vocab_size=50280, hidden_size=768, state_size=STATES, num_hidden_layers=24
    )
    torch.manual_seed(1)
    model = transformers.MambaForCausalLM(config).eval().to(device)
    ids = torch.randint(config.vocab_size, (1, length)).to(device)

    def run():
        with torch.inference_mode():
            hidden = model.backbone(ids, use_cache=False).last_hidden_state
            model.lm_head(hidden[:, -1:])

    return run


def compiled_fold(layer):
    """folded() through torch.compile, or why there is none."""
    fold = torch.compile(folded, dynamic=False)
    try:
        torch.testing.assert_close(folded_matrix(layer, fold),
                                   folded_matrix(layer))
    except Exception as error:  # a compiler's own types
        reason = str(error).strip().splitlines()[0]
        return None, f"{type(error).__name__}: {reason}"
    return fold, None


def milliseconds(work, repeats, device):
    def timed():
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3

    timed()
    times = [timed() for _ in range(repeats)]
    return statistics.median(times), min(times), max(times)


def peers_on(device):
    """(op, peer, work) of all that runs on a device."""
    # The longest whose matrix eager PyTorch makes there in seconds.
    length = 1024 if device.type == "cuda" else 256
    op = f"mamba-130m-layer/matrices/L={length}"
    pytorch = f"PyTorch {torch.__version__}"
    layer = Layer(length, device)
    yield op, f"{pytorch}, eager, vectorised", lambda: folded_matrix(layer)
    # Compiles for the shapes of `layer`.
    fold, reason = compiled_fold(layer)
    if fold is None:
        print(f"left out: torch.compile ({reason})")
    else:
        yield (op, f"{pytorch}, torch.compile",
               lambda: folded_matrix(layer, fold))
    short = Layer(64, device)
    yield ("mamba-130m-layer/matrices/L=64",
           "the paper authors' loops, implemented anew",
           lambda: loops_matrix(short))
    if transformers is None:
        print("left out: Hugging Face transformers (not installed)")
    else:
        yield (f"mamba-130m/forward/L={length}",
               f"Hugging Face transformers {transformers.__version__}",
               hugging_face_forward(length, device))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="of each peer")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)

    small = Layer(12, options.device, channels=5, states=3)
    torch.testing.assert_close(folded_matrix(small), loops_matrix(small))

    ours = {line["op"]: line
            for line in map(json.loads, options.file.read_text().splitlines())}
    print(f"{'peer':70} {'median ms':>10} {'Limpid':>10} {'ratio':>7}")
    for op, name, work in peers_on(options.device):
        if op not in ours:
            continue
        median, least, most = milliseconds(work, options.repeats,
                                           options.device)
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
