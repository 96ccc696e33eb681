# SPDX-License-Identifier: Apache-2.0
"""A trained model -> a folder in Hugging Face's layout, and checks of it."""

import argparse
import dataclasses
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

import mamba
import tokens

LOGIT_TOLERANCE = 1e-4


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """One option for each field of a settings dataclass."""
    for field in dataclasses.fields(settings):
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=type(field.default),
            default=field.default,
        )


def settings_from(options: argparse.Namespace, settings: type):
    return settings(**{
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(settings)
    })


def write_folder(folder: pathlib.Path, config: dict, state: dict,
                 tokenizer) -> None:
    """Writes config, float32 weights and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in state.items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "model.safetensors"):
        (folder / name).chmod(0o644)
    tokens.save(tokenizer, folder / "tokenizer.json")


def load_folder(folder: pathlib.Path) -> mamba.Mamba:
    """The exported model in our own implementation, on the CPU."""
    config = json.loads((folder / "config.json").read_text())
    model = mamba.Mamba(mamba.MambaConfig(
        config["vocab_size"], config["hidden_size"],
        config["num_hidden_layers"], config["state_size"], config["expand"],
        config["conv_kernel"], config["layer_norm_epsilon"],
    ))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def describe_size(folder: pathlib.Path) -> str:
    """Parameters and bytes on disk, for a card (which is not counted)."""
    names = ("config.json", "model.safetensors", "tokenizer.json")
    size = sum((folder / name).stat().st_size for name in names)
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
    """An exported folder as the published libraries see it, on the CPU."""

    def __init__(self, folder: pathlib.Path):
        import tokenizers
        import transformers

        transformers.logging.set_verbosity_error()
        self.source = (
            f"Hugging Face transformers {transformers.__version__} "
            "MambaForCausalLM (float32, CPU), tokenizers "
            f"{tokenizers.__version__}, torch {torch.__version__}"
        )
        self.tokenizer = tokenizers.Tokenizer.from_file(
            str(folder / "tokenizer.json")
        )
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32
        ).eval()

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @torch.inference_mode()
    def logits(self, rows: list[list[int]], batch=64) -> torch.Tensor:
        """[rows, V] at each row's last token (right-padded, causal)."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        result = [None] * len(rows)
        for start in range(0, len(order), batch):
            chosen = order[start:start + batch]
            longest = max(len(rows[i]) for i in chosen)
            padded = torch.tensor(
                [rows[i] + [0] * (longest - len(rows[i])) for i in chosen]
            )
            out = self.model(input_ids=padded, use_cache=False).logits
            for row, i in zip(out, chosen):
                result[i] = row[len(rows[i]) - 1]
        return torch.stack(result)


def assert_same_logits(reference: Reference, model, rows) -> float:
    """Largest difference between the reference and our implementation."""
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
    return worst
