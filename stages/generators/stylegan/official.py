"""What an official snapshot says about its network: from the attributes of its modules to our configurations."""

from __future__ import annotations

from typing import Any

from stages.errors import UserError
from stages.generators.stylegan.snapshots import Module

Modules = dict[str, Module]  # by path, as `synthesis.b4.conv1`

STYLEGAN3_CLASSES = {
    "Generator", "MappingNetwork", "SynthesisNetwork", "SynthesisInput", "SynthesisLayer", "FullyConnectedLayer",
}  # fmt: skip
CLASSES = {
    "stylegan2": {
        "Generator", "MappingNetwork", "SynthesisNetwork", "SynthesisBlock", "SynthesisLayer", "ToRGBLayer",
        "Conv2dLayer", "FullyConnectedLayer",
    },
    "stylegan3": STYLEGAN3_CLASSES,
    "stylegan-xl": {*STYLEGAN3_CLASSES, "SuperresGenerator", "Embedding"},
}  # fmt: skip


def recognised(generator: Module) -> tuple[str, dict[str, Any]]:
    """The family of a snapshot's generator and its configuration as plain values; UserError names what is foreign.

    The families share names of classes that mean different things, so the tensors tell them apart.
    """
    modules = dict(generator.walk())
    if "synthesis.b4" in modules and "const" in modules["synthesis.b4"].tensors:
        family, synthesis = "stylegan2", _stylegan2_synthesis
    elif "synthesis.input" in modules and "freqs" in modules["synthesis.input"].tensors:
        pretrained = "mapping.embed" in modules and modules["mapping.embed"].class_name == "Embedding"
        family, synthesis = "stylegan-xl" if pretrained else "stylegan3", _stylegan3_synthesis
    else:
        raise UserError("Its generator is not StyleGAN2, StyleGAN3 or StyleGAN-XL.")
    for path, module in modules.items():
        if module.class_name not in CLASSES[family] or module.attributes.get("activation", "linear") not in (
            "linear", "lrelu",
        ):  # fmt: skip
            raise UserError(f"Its layer {path[:50]!r} is a {module.class_name[:50]!r}, which no official {family} has.")
    try:
        return family, {"mapping": _mapping(modules), "synthesis": synthesis(modules)}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"It looks like {family}, but its modules do not say everything ({str(error)[:100]})."
        ) from None


def _mapping(modules: Modules) -> dict[str, Any]:
    root, facts = modules[""].attributes, modules["mapping"].attributes
    layers = [modules[f"mapping.fc{i}"] for i in range(facts["num_layers"])]
    mapping = {
        "z_dim": root["z_dim"],
        "c_dim": root["c_dim"],
        "embedding": 0,
        "widths": [layer.tensors["weight"].shape[0] for layer in layers],
        "lr_multiplier": layers[0].attributes["bias_gain"],
    }
    embed = modules.get("mapping.embed")
    if embed and embed.class_name == "Embedding":
        mapping |= {"classes": embed.tensors["weight"].shape[0], "features": embed.tensors["weight"].shape[1]}
    if mapping["c_dim"]:
        last = modules.get("mapping.embed_proj") or modules["mapping.embed"]
        mapping["embedding"] = last.tensors["weight"].shape[0]
    return mapping


def _stylegan3_synthesis(modules: Modules) -> dict[str, Any]:
    facts, start = modules["synthesis"].attributes, modules["synthesis.input"].attributes
    layers = [modules[f"synthesis.{name}"].attributes for name in facts["layer_names"]]
    return {
        "resolution": facts["img_resolution"],
        "input": {
            "channels": start["channels"],
            "size": _side(start["size"]),
            "sampling_rate": start["sampling_rate"],
            "bandwidth": start["bandwidth"],
        },
        "layers": [
            {
                "name": name,
                "in_channels": layer["in_channels"],
                "out_channels": layer["out_channels"],
                "in_size": _side(layer["in_size"]),
                "out_size": _side(layer["out_size"]),
                "kernel": layer["conv_kernel"],
                "up": layer["up_factor"],
                "down": layer["down_factor"],
                "up_taps": layer["up_taps"],
                "down_taps": layer["down_taps"],
                "radial": layer["down_radial"],
                "clamp": layer["conv_clamp"],
                "to_rgb": layer["is_torgb"],
            }
            for name, layer in zip(facts["layer_names"], layers, strict=True)
        ],
        "output_scale": facts["output_scale"],
    }


def _side(size: list[int]) -> int:
    width, height = size
    if width != height:
        raise ValueError(f"{width} x {height} samples, where only squares are known")
    return width


def _stylegan2_synthesis(modules: Modules) -> dict[str, Any]:
    facts = modules["synthesis"].attributes
    blocks = [f"synthesis.b{side}" for side in facts["block_resolutions"]]
    clamps = {
        module.attributes["conv_clamp"]
        for module in modules.values()
        if module.class_name in ("SynthesisLayer", "ToRGBLayer")
    }
    if len(clamps) != 1:
        raise ValueError("layers clamp at different bounds")
    return {
        "resolution": facts["img_resolution"],
        "architecture": modules[blocks[-1]].attributes["architecture"],
        "channels": [modules[f"{block}.conv1"].tensors["weight"].shape[0] for block in blocks],
        "clamp": clamps.pop(),
    }
