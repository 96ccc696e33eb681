# SPDX-License-Identifier: Apache-2.0
"""The families by name, and a folder -> model loader for all of them."""

import json
import pathlib

from safetensors.torch import load_file

import deltanet
import gated_deltanet
import gla
import griffin
import hgrn2
import mamba
import mamba2
import mlstm
import retnet
import rwkv4
import rwkv5
import rwkv6
import rwkv7

TEXT = {
    "mamba": mamba,
    "mamba2": mamba2,
    "griffin": griffin,
    "rwkv4": rwkv4,
    "rwkv5": rwkv5,
    "rwkv6": rwkv6,
    "rwkv7": rwkv7,
    "gla": gla,
    "retnet": retnet,
    "hgrn2": hgrn2,
    "deltanet": deltanet,
    "gated-deltanet": gated_deltanet,
    "mlstm": mlstm,
}
BY_MODEL_TYPE = {
    "mamba": mamba,
    "mamba2": mamba2,
    "recurrent_gemma": griffin,
    "rwkv": rwkv4,
    "rwkv5": rwkv5,
    "rwkv6": rwkv6,
    "rwkv7": rwkv7,
    "gla": gla,
    "retnet": retnet,
    "hgrn2": hgrn2,
    "delta_net": deltanet,
    "gated_deltanet": gated_deltanet,
    "xlstm": mlstm,
}
# Who computes the figures of a card, next to our own code.
IN_TRANSFORMERS = ("mamba", "mamba2", "griffin", "rwkv4", "mlstm")
IN_RWKV_PACKAGE = ("rwkv5", "rwkv6", "rwkv7")
TITLES = {
    "mamba": "Mamba",
    "mamba2": "Mamba-2",
    "griffin": "Griffin (RecurrentGemma)",
    "rwkv4": "RWKV-4",
    "rwkv5": "RWKV-5.2",
    "rwkv6": "RWKV-6",
    "rwkv7": "RWKV-7",
    "gla": "GLA",
    "retnet": "RetNet",
    "hgrn2": "HGRN2",
    "deltanet": "DeltaNet",
    "gated-deltanet": "Gated DeltaNet",
    "mlstm": "mLSTM (xLSTM)",
}
PUBLISHED = {
    "mamba": "Hugging Face `MambaForCausalLM`",
    "mamba2": "Hugging Face `Mamba2ForCausalLM`",
    "griffin": "Hugging Face `RecurrentGemmaForCausalLM`",
    "rwkv4": "Hugging Face `RwkvForCausalLM`",
    "rwkv5": "Hugging Face hub's RWKV-5 (`Rwkv5ForCausalLM`)",
    "rwkv6": "Hugging Face hub's RWKV-6 (`Rwkv6ForCausalLM`)",
    "rwkv7": "flash-linear-attention's `RWKV7ForCausalLM`",
    "gla": "flash-linear-attention's `GLAForCausalLM`",
    "retnet": "flash-linear-attention's `RetNetForCausalLM`",
    "hgrn2": "flash-linear-attention's `HGRN2ForCausalLM`",
    "deltanet": "flash-linear-attention's `DeltaNetForCausalLM`",
    "gated-deltanet": "flash-linear-attention's `GatedDeltaNetForCausalLM`",
    "mlstm": "Hugging Face `xLSTMForCausalLM`",
}
# What the implicit attention of a family is made of.
FACTORS = {
    "mamba": "recurrence, skip, convolution, activation and gate",
    "mamba2": "recurrence, skip, convolution, activation, gate and norm",
    "griffin": "recurrence, convolution and gate",
    "rwkv4": "recurrence and receptance",
    "rwkv5": "recurrence, norm and gate",
    "rwkv6": "recurrence, norm and gate",
    "rwkv7": "recurrence, norm, bonus and gate",
    "gla": "recurrence, convolution, activation, norm and gate",
    "retnet": "recurrence, convolution, activation, norm and gate",
    "hgrn2": "recurrence, convolution and norm",
    "deltanet": "recurrence, convolution, activation and norm",
    "gated-deltanet": "recurrence, convolution, activation, norm and gate",
    "mlstm": "recurrence, norm and gate",
}


def name_of(model) -> str:
    """The family's name of a model or a configuration."""
    return next(name for name, family in TEXT.items()
                if family.__name__ == type(model).__module__)


def load(folder: pathlib.Path):
    """A text model from a folder in the published layout, on the CPU."""
    config = json.loads((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    family = BY_MODEL_TYPE[config["model_type"]]
    # RWKV-5 and 6 leave some sizes to the shapes of the weights.
    model = family.Model(family.Config.from_hf(config, state))
    model.load_state_dict(state)
    return model.eval()
