"""StyleGAN2, StyleGAN3 and StyleGAN-XL from official weights, in plain PyTorch on any device.

snapshots/      official .pkl files, read as data
official.py     what a snapshot says of its network
checkpoint.py   weights from either format; conversion
configs.py      foreign values as checked configurations
generator.py    the generator over a network
networks/       the networks themselves
"""

from stages.generators.stylegan.checkpoint import convert, describe
from stages.generators.stylegan.generator import load

__all__ = ["convert", "describe", "load"]
