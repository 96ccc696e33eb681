#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares every family's training code with the golden checkpoints.

    python scripts/train/check_families.py

Each case is loaded by its published names, in float64. Logits, implicit
attention and, where there are some, gradients must be those that other
people's implementations gave (tests/golden/README.md). A state dict must come
out with the names and shapes that went in, since it is exported as it is, and
config.json must survive the way through our own fields.
"""

import argparse
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file

import families
import vim

# Relative errors allowed; the float64 here is far below. Rescaled RWKV-4 is
# computed differently on purpose, as the case's README says.
TOLERANCE = 1e-6
ROUGH = {"rwkv4-rescale": 1e-4}
CASES = (
    "mamba-tied", "mamba-bias-untied", "mamba2-g1", "mamba2-g2",
    "recurrent-gemma", "recurrent-gemma-window", "rwkv4", "rwkv4-rescale",
    "rwkv5-hub", "rwkv6-hub", "rwkv7-fla", "vim-central", "vim-odd-grid",
    "mlstm",
)


def load(folder: pathlib.Path):
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "vim":
        return families.load(folder)
    state = load_file(folder / "model.safetensors")
    model = vim.Model(vim.Config.from_hf(config, state))
    model.load_state_dict(state)
    return model.eval()


def error(found, expected) -> float:
    found, expected = found.detach().double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def run(model, e):
    """-> logits [L, V] or [V], uncapped likewise, attention by layer."""
    maps = []
    hidden = model.hidden(e, maps)
    if isinstance(model, vim.Model):
        logits = model.head(hidden)
        return logits[0], logits[0], maps
    return model.logits(hidden)[0], model.uncapped(hidden)[0], maps


def compare(folder: pathlib.Path) -> dict:
    """What was compared -> relative error."""
    model = load(folder).double()
    inputs = json.loads((folder / "inputs.json").read_text())
    expected = load_file(folder / "expected.safetensors")
    if isinstance(model, vim.Model):
        e = model.embed(expected["pixels"].double().unsqueeze(0)).detach()
    else:
        e = model.embed(torch.tensor([inputs["token_ids"]])).detach()
    e.requires_grad_(True)
    logits, uncapped, maps = run(model, e)
    found = {"logits": error(logits, expected["logits"])}
    for layer, part in enumerate(maps):
        part = part[0].detach()
        name = f"layers.{layer}"
        if f"{name}.bonus" in expected:
            # Ours includes it; the golden matrix does not.
            part = part - torch.diag_embed(expected[f"{name}.bonus"])
        if f"{name}.alpha" in expected:
            found[f"{name}.alpha"] = error(part, expected[f"{name}.alpha"])
    for name, values in (("grad.embeddings", logits),
                         ("grad.embeddings_uncapped", uncapped)):
        if name in expected:
            row = values if values.dim() == 1 else values[inputs["position"]]
            gradient = torch.autograd.grad(
                row[inputs["target"]], e, retain_graph=True)[0][0]
            found[name] = error(gradient, expected[name])
    for extra in inputs.get("extra", []):
        name = f"extra.{extra['name']}.logits"
        with torch.no_grad():
            values = model(torch.tensor([extra["token_ids"]]))[0]
        found[name] = error(values, expected[name])
    return found


def check_names(folder: pathlib.Path) -> None:
    """Export must give back the published names, shapes and fields."""
    model = load(folder)
    published = load_file(folder / "model.safetensors")
    ours = {name: value.shape for name, value in model.state_dict().items()}
    theirs = {name: value.shape for name, value in published.items()}
    if ours != theirs:
        raise RuntimeError(f"{folder.name}: names or shapes differ: "
                           f"{sorted(ours.items() ^ theirs.items())}")
    again = type(model.config).from_hf(model.config.to_hf(), published)
    if again.to_hf() != model.config.to_hf():
        raise RuntimeError(f"{folder.name}: config.json changes on the way")


def main() -> int:
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--golden", type=pathlib.Path,
                        default=root / "tests/golden/checkpoints")
    options = parser.parse_args()
    failed = 0
    for case in CASES:
        folder = options.golden / case
        if not folder.is_dir():
            print(f"{case}: not there")
            failed += 1
            continue
        check_names(folder)
        found = compare(folder)
        name, worst = max(found.items(), key=lambda item: item[1])
        good = worst <= ROUGH.get(case, TOLERANCE)
        failed += not good
        print(f"{case}: {len(found)} comparisons, largest error {worst:.1e} "
              f"({name}){'' if good else ' TOO LARGE'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
