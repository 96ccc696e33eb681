#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden cases of mLSTM with transformers' xLSTMForCausalLM.

    pip install torch==2.11.0 transformers==4.57.1 safetensors
    tests/tools/make_mlstm_golden.py tests/golden/checkpoints

Without the package `xlstm` the class runs its native code. Sequences are
shorter than a chunk: its native kernel for whole chunks ends with a TypeError.
"""

import json
import pathlib
import sys

import safetensors.torch
import torch
import transformers
from transformers.models.xlstm import modeling_xlstm

CASES = {
    "mlstm": dict(seed=1, length=17, extra={"L1": 1, "L3": 3},
                  config=dict(vocab_size=13, hidden_size=12, num_heads=2,
                              num_hidden_layers=2, chunk_size=64,
                              ffn_round_up_to_multiple_of=8)),
    "mlstm-fused": dict(seed=2, length=9, extra={"L2": 2},
                        config=dict(vocab_size=11, hidden_size=8, num_heads=2,
                                    num_hidden_layers=2, chunk_size=64,
                                    qk_dim_factor=1.0, v_dim_factor=1.5,
                                    ffn_proj_factor=1.3, use_bias=True,
                                    ffn_round_up_to_multiple_of=4, eps=1e-3,
                                    norm_eps=1e-5, weight_mode="fused",
                                    gate_soft_cap=3.0, tie_word_embeddings=True,
                                    output_logit_soft_cap=2.0)),
}
STEPS = 32


def make_model(case):
    config = transformers.xLSTMConfig(
        **case["config"], use_cache=False, inference_state_dtype="float64",
        norm_reduction_force_float32=False)
    torch.manual_seed(case["seed"])
    # The class's initial weights leave gates at constants and biases at zero;
    # of fused ones it makes none.
    with transformers.modeling_utils.no_init_weights():
        model = transformers.xLSTMForCausalLM(config)
    model.tie_weights()
    model.backbone.out_norm.force_float32_reductions = False
    for name, weight in model.named_parameters():
        noise = torch.randn_like(weight)
        if "norm" in name and name.endswith("weight"):
            weight.data = 1 + 0.2 * noise
        elif weight.dim() == 1:
            weight.data = 0.5 * noise
        else:
            weight.data = noise * (2.0 / weight.shape[1]) ** 0.5
    return model.eval()


def uncapped_logits(model, embeddings):
    """Scores [L, V] in float64: the class itself casts them to float32."""
    seen = []
    hook = model.lm_head.register_forward_hook(
        lambda module, inputs, output: seen.append(output))
    model(inputs_embeds=embeddings.unsqueeze(0))
    hook.remove()
    return seen[0][0]


def look_at_layers(model, embeddings):
    """Tensors of every layer, by their golden names."""
    out, hooks, backend_inputs = {}, [], {}

    def keep(name, tensor):
        out[name] = tensor.detach().flatten(1).T.contiguous()

    for index, block in enumerate(model.backbone.blocks):
        mixer, at = block.mlstm_layer, f"layers.{index}."
        hooks += [
            mixer.mlstm_backend.register_forward_pre_hook(
                lambda module, args, kwargs, index=index:
                backend_inputs.update({index: kwargs}), with_kwargs=True),
            mixer.multihead_norm.register_forward_pre_hook(
                lambda module, args, at=at: keep(at + "o", args[0][0])),
            mixer.out_proj.register_forward_pre_hook(
                lambda module, args, at=at: keep(at + "y", args[0][0])),
        ]
    logits = uncapped_logits(model, embeddings)
    for hook in hooks:
        hook.remove()
    for index, block in enumerate(model.backbone.blocks):
        given = backend_inputs[index]
        value = given["value"][0].transpose(0, 1)  # [L, H, P]
        keep(f"layers.{index}.v", value)
        keep(f"layers.{index}.v_centred", value - value.mean(-1, keepdim=True))
        # Values that are one at one position show a column of the matrix.
        length, heads = value.shape[:2]
        eye = torch.eye(length, dtype=value.dtype).expand(1, heads, -1, -1)
        columns, _ = block.mlstm_layer.mlstm_backend(**{**given, "value": eye})
        out[f"layers.{index}.state"] = columns[0].detach().contiguous()
    return logits.detach(), out


def capped(model, logits):
    return modeling_xlstm.soft_cap(logits, model.config.output_logit_soft_cap)


def gradient(model, embeddings, position, target, cap):
    point = embeddings.detach().clone().requires_grad_(True)
    logits = uncapped_logits(model, point)
    if cap:
        logits = capped(model, logits)
    score = logits[position, target]
    (grad,) = torch.autograd.grad(score, point)
    return score.item(), grad


def run(case, folder):
    model = make_model(case)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.to_json_file(folder / "config.json")
    weights = {name: tensor.contiguous()
               for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    model = model.double()

    table = model.get_input_embeddings().weight.detach()
    draw = torch.Generator().manual_seed(case["seed"])
    ids = lambda n: torch.randint(len(table), (n,), generator=draw).tolist()
    tokens = ids(case["length"])
    extra = {name: ids(n) for name, n in case["extra"].items()}
    position, target = len(tokens) - 2, 3

    e = table[tokens]
    logits, expected = look_at_layers(model, e)
    expected["logits"] = capped(model, logits)
    expected["embeddings"] = e
    for name, cap in {"": True, "_uncapped": False}.items():
        expected["grad.embeddings" + name] = gradient(
            model, e, position, target, cap)[1]
    total = torch.zeros_like(e)
    for step in range(STEPS):
        total += gradient(model, e * (step + 0.5) / STEPS, position, target,
                          False)[1]
    ends = [gradient(model, point, position, target, False)[0]
            for point in (torch.zeros_like(e), e)]
    expected["ig.embeddings"] = e * total / STEPS
    expected["ig.endpoints"] = torch.tensor(ends, dtype=e.dtype)
    expected["ig.completeness_gap"] = torch.tensor(
        [expected["ig.embeddings"].sum() - (ends[1] - ends[0])], dtype=e.dtype)
    for name, sequence in extra.items():
        logits, layers = look_at_layers(model, table[sequence])
        layers["logits"] = capped(model, logits)
        expected.update({f"extra.{name}.{key}": value
                         for key, value in layers.items()})
    safetensors.torch.save_file(expected, folder / "expected.safetensors")
    inputs = {
        "source": f"Hugging Face transformers {transformers.__version__} "
                  "xLSTMForCausalLM (native code) on CPU, torch "
                  f"{torch.__version__.split('+')[0]}, float64",
        "token_ids": tokens, "target": target, "position": position,
        "extra": [{"name": name, "token_ids": sequence}
                  for name, sequence in extra.items()],
    }
    (folder / "inputs.json").write_text(json.dumps(inputs) + "\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if modeling_xlstm.external_xlstm:
        sys.exit("the package xlstm is installed: its kernels would run")
    for name, case in CASES.items():
        run(case, pathlib.Path(sys.argv[1]) / name)


if __name__ == "__main__":
    main()
