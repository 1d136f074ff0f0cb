"""Networks and numbers of the public implementations (tests/fixtures/README.md)."""

import json
from pathlib import Path

from stages.generators.stylegan.configs import decoded
from stages.generators.stylegan.networks import stylegan3, styleganxl

FIXTURES = Path(__file__).parents[1] / "fixtures" / "stylegan"
FOLDERS = sorted(folder.name for folder in FIXTURES.iterdir() if folder.is_dir())
GEOMETRY = json.loads((FIXTURES / "geometry.json").read_text())
RENAMED = dict(kernel="conv_kernel", up="up_factor", down="down_factor", radial="down_filter_radial", to_rgb="is_torgb")


def snapshot(folder: str) -> Path:
    return FIXTURES / folder / "network.pkl"


def official(name: str):
    """Our configuration of a full-size network."""
    facts, xl = GEOMETRY[name], name.startswith("stylegan-xl")
    mapping = dict(z_dim=facts["z_dim"], c_dim=facts["c_dim"], embedding=facts["z_dim"] if xl else 0)
    mapping |= dict(widths=[facts["w_dim"]] * 2, lr_multiplier=0.01) | (dict(classes=1000, features=320) if xl else {})
    layers = [
        {
            field: 256 if field == "clamp" else side(layer[RENAMED.get(field, field)])
            for field in stylegan3.LayerConfig.__dataclass_fields__
        }
        for layer in facts["layers"]
    ]
    start = {field: side(value) for field, value in facts["input"].items()}
    synthesis = dict(resolution=facts["constructor"]["img_resolution"], input=start, layers=layers, output_scale=0.25)
    family = styleganxl if xl else stylegan3
    return family, decoded(family.Config, dict(mapping=mapping, synthesis=synthesis))


def side(value):
    return value[0] if isinstance(value, list) else value
