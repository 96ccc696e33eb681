# SPDX-License-Identifier: Apache-2.0
"""A trained model -> a folder in Hugging Face's layout, and checks of it."""

import json
import pathlib

import torch
from safetensors.torch import save_file

import tokens

LOGIT_TOLERANCE = 1e-4


def write_folder(folder: pathlib.Path, config: dict, state: dict, tokenizer,
                 card: str) -> int:
    """Writes config, float32 weights, tokenizer and card; returns bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in state.items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tokens.save(tokenizer, folder / "tokenizer.json")
    (folder / "README.md").write_text(card, encoding="utf-8")
    return sum(path.stat().st_size for path in folder.iterdir())


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
    """Largest difference between the reference and the trained model."""
    theirs = reference.logits(rows)
    model = model.to("cpu").eval()
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
