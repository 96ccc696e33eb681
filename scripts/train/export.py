# SPDX-License-Identifier: Apache-2.0
"""A trained model -> a folder in the published layout, and checks of it."""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile

import torch
from safetensors.torch import load_file, save_file

import families
import tokens

LOGIT_TOLERANCE = 1e-4


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """One option for each field of a settings dataclass, and --size."""
    for field in dataclasses.fields(settings):
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=type(field.default))
    parser.add_argument(
        "--size", action="append", default=[], metavar="NAME=VALUE",
        help="another value for a field of the family's Config")


def settings_from(options: argparse.Namespace, settings: type,
                  defaults: dict):
    """Settings and sizes: the command line, else the family's, else all's."""
    names = [field.name for field in dataclasses.fields(settings)]
    chosen = {name: value for name, value in defaults.items()
              if name in names}
    sizes = {name: value for name, value in defaults.items()
             if name not in names}
    for name in names:
        if getattr(options, name) is not None:
            chosen[name] = getattr(options, name)
    for item in options.size:
        name, value = item.split("=", 1)
        try:
            sizes[name] = json.loads(value)
        except json.JSONDecodeError:
            sizes[name] = value
    return settings(**chosen), sizes


def listed(settings, sizes: dict, after: str) -> str:
    """For a card: settings but for zeros, sizes after the field `after`."""
    items = []
    for name, value in dataclasses.asdict(settings).items():
        if value != 0:
            items.append(f"{name}={value}")
        if name == after:
            items += [f"{name}={value}" for name, value in sizes.items()]
    return ", ".join(items)


def write_folder(folder: pathlib.Path, config: dict, state: dict,
                 tokenizer=None) -> None:
    """Writes config, float32 weights and, for text, the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in state.items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "model.safetensors"):
        (folder / name).chmod(0o644)
    if tokenizer is not None:
        tokens.save(tokenizer, folder / "tokenizer.json")


def describe_size(folder: pathlib.Path) -> str:
    """Parameters and bytes on disk, for a card (which is not counted)."""
    size = sum(path.stat().st_size for path in folder.rglob("*")
               if path.is_file() and path.name != "README.md")
    count = sum(
        value.numel()
        for value in load_file(folder / "model.safetensors").values()
    )
    return f"{count:,} float32 parameters, {size:,} bytes in all"


def write_json(path: pathlib.Path, content: dict) -> None:
    """One line per case, so that a difference can be read."""
    head = {k: v for k, v in content.items() if k != "cases"}
    lines = [json.dumps(case, ensure_ascii=True) for case in content["cases"]]
    text = json.dumps(head, indent=1, ensure_ascii=True)
    text = text[:-2] + ',\n "cases": [\n  ' + ",\n  ".join(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n ]\n}\n", encoding="utf-8")


class Reference:
    """An exported folder as somebody else's code sees it, on the CPU.

    Hugging Face transformers where it has the family, BlinkDL's PyPI package
    `rwkv` for RWKV-5 to 7; our own code for families that nobody else's code
    was at hand for. The tokenizer always goes through `tokenizers`.
    """

    def __init__(self, folder: pathlib.Path):
        import tokenizers

        self.tokenizer = tokenizers.Tokenizer.from_file(
            str(folder / "tokenizer.json")
        )
        family = families.name_of(families.load(folder))
        self.independent = True
        if family in families.IN_TRANSFORMERS:
            self.network = _TransformersNetwork(folder)
        elif family in families.IN_RWKV_PACKAGE:
            self.network = _RwkvNetwork(folder)
        else:
            self.network = _OwnNetwork(folder)
            self.independent = False
        self.source = (
            f"{self.network.source} (float32, CPU), tokenizers "
            f"{tokenizers.__version__}, torch {torch.__version__}"
        )

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def logits(self, rows: list[list[int]]) -> torch.Tensor:
        """[rows, V] at each row's last token."""
        return self.network.logits(rows)


class _TransformersNetwork:
    def __init__(self, folder: pathlib.Path):
        import transformers

        transformers.logging.set_verbosity_error()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        self.source = (
            f"Hugging Face transformers {transformers.__version__} "
            f"{type(self.model).__name__}"
        )

    @torch.inference_mode()
    def logits(self, rows, batch=64):
        """Right-padded batches: causal, so padding has no effect."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        result = [None] * len(rows)
        for start in range(0, len(order), batch):
            chosen = order[start:start + batch]
            longest = max(len(rows[i]) for i in chosen)
            padded = torch.tensor(
                [rows[i] + [0] * (longest - len(rows[i])) for i in chosen]
            )
            # RecurrentGemma's blocks remember the batch before.
            for part in self.model.modules():
                if hasattr(part, "recurrent_states"):
                    part.recurrent_states = None
            out = self.model(input_ids=padded, use_cache=False).logits
            for row, i in zip(out, chosen):
                result[i] = row[len(rows[i]) - 1]
        return torch.stack(result)


class _RwkvNetwork:
    def __init__(self, folder: pathlib.Path):
        import importlib.metadata

        model_type = json.loads(
            (folder / "config.json").read_text())["model_type"]
        seventh = model_type == "rwkv7"
        # The package reads these when it is imported.
        os.environ["RWKV_V7_ON"] = "1" if seventh else "0"
        os.environ["RWKV_JIT_ON"] = "0"
        os.environ["RWKV_CUDA_ON"] = "0"
        from rwkv.model import RWKV

        state = load_file(folder / "model.safetensors")
        renamed = _blinkdl_v7(state) if seventh else _blinkdl_v5_v6(state)
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch) / "weights"
            torch.save(renamed, f"{path}.pth")
            self.model = RWKV(str(path) if seventh else f"{path}.pth",
                              "cpu fp32", **({} if seventh
                                             else {"verbose": False}))
        version = importlib.metadata.version("rwkv")
        self.source = f"PyPI rwkv {version} (names changed to BlinkDL's)"

    @torch.inference_mode()
    def logits(self, rows):
        return torch.stack([
            self.model.forward(row, None)[0].clone() for row in rows])


class _OwnNetwork:
    source = "the training code"

    def __init__(self, folder: pathlib.Path):
        self.model = families.load(folder)

    @torch.inference_mode()
    def logits(self, rows):
        return torch.stack([
            self.model(torch.tensor([row]))[0, -1] for row in rows])


def _renamed(state: dict, changes) -> dict:
    result = {}
    for name, value in state.items():
        for old, new in changes:
            name = name.replace(old, new)
        result[name] = value
    return result


def _blinkdl_v5_v6(state: dict) -> dict:
    # The package finds the head count by the time it meets time_faaaa.
    state = dict(sorted(state.items(), key=lambda x: "time_faaaa" in x[0]))
    return _renamed(state, [
        ("rwkv.embeddings.", "emb."), ("rwkv.", ""), (".pre_ln.", ".ln0."),
        (".attention.", ".att."), (".feed_forward.", ".ffn."),
        ("time_mix_key", "time_mix_k"), ("time_mix_value", "time_mix_v"),
        ("time_mix_receptance", "time_mix_r"), ("time_mix_gate", "time_mix_g"),
    ])


def _blinkdl_v7(state: dict) -> dict:
    result = {}
    for name, value in _renamed(state, [
        ("model.embeddings.", "emb."), ("model.norm.", "ln_out."),
        ("lm_head.", "head."), ("model.layers.", "blocks."),
        (".pre_norm.", ".ln0."), (".attn_norm.", ".ln1."),
        (".ffn_norm.", ".ln2."), (".attn.", ".att."), (".g_norm.", ".ln_x."),
        (".r_proj.", ".receptance."), (".k_proj.", ".key."),
        (".v_proj.", ".value."), (".o_proj.", ".output."),
        ("_lora.lora.0.weight", "1"), ("_lora.lora.2.weight", "2"),
        ("_lora.lora.2.bias", "0"),
    ]).items():
        last = name.rsplit(".", 1)[-1]
        if len(last) == 2 and last[1] in "12" and last[0] in "wavg":
            value = value.T.contiguous()
        elif last in ("w0", "a0", "v0", "k_k", "k_a", "x_k"):
            value = value.view(1, 1, -1)
        result[name] = value
    # Read but never used in the first layer.
    for part in "012":
        result.setdefault(f"blocks.0.att.v{part}",
                          result[f"blocks.0.att.a{part}"])
    return result


def agreement(reference: Reference, model, rows) -> str:
    """For a card: how far apart the reference and our implementation are."""
    if not reference.independent:
        return ("No other implementation of this family was at hand: the "
                "figures of this card\nare the training code's, which the "
                "server agrees with (golden cases).")
    theirs = reference.logits(rows)
    worst = 0.0
    with torch.inference_mode():
        for row, expected in zip(rows, theirs):
            ours = model(torch.tensor([row]))[0, -1]
            worst = max(worst, float((ours - expected).abs().max()))
    if not worst <= LOGIT_TOLERANCE:
        raise RuntimeError(
            f"logits differ from the reference by {worst:.2e}, "
            f"allowed {LOGIT_TOLERANCE:.0e}"
        )
    return ("The training implementation and the reference agree on logits "
            f"to {worst:.1e}.")
