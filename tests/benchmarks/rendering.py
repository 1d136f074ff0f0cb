"""Images per second and peak memory of the generators, with random weights of official sizes.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.rendering [--images 4] [--at-once 1] [--device cpu] [--json]

StyleGAN3-T 256 and StyleGAN-XL 64 have the official geometry (tests/fixtures/stylegan/geometry.json); the text-to-image
pipeline is a tiny one. Each runs in a process of its own, so that peak memory is its own; what a process holds before the
first image is taken off.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

GENERATORS = ("stylegan3-t_256_cbase16384", "stylegan-xl_64", "tiny stable diffusion")


def stylegan(name: str, device: torch.device):
    """Latents float32 [n, w_dim] -> images, by a network of the official geometry."""
    from tests.helpers.stylegan import official

    family, config = official(name)
    network = family.network(config).eval().requires_grad_(False).to(device)
    width, precision = config.mapping.w_dim, torch.float16 if device.type == "cuda" else torch.float32
    return width, lambda w: network.synthesis(w[:, None].expand(-1, network.synthesis.num_ws, -1), precision)


def tiny_diffusion(device: torch.device):
    from stages.generators import diffusion
    from tests.helpers import tiny_pipelines

    folder = tempfile.TemporaryDirectory()
    tiny_pipelines.build(Path(folder.name))
    generator = diffusion.load(Path(folder.name) / "sd", prompt="a cat", steps=10, device=device)
    return generator.latent_dim, generator.render


def peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@torch.no_grad()
def measure(name: str, images: int, at_once: int, device: torch.device) -> dict:
    width, render = tiny_diffusion(device) if "diffusion" in name else stylegan(name, device)
    before = peak(device)
    latents = torch.randn(images, width, device=device)
    render(latents[:at_once]).cpu()
    begun = time.perf_counter()
    for some in latents.split(at_once):
        render(some).cpu()
    seconds = (time.perf_counter() - begun) / images
    return {
        "generator": name,
        "seconds_per_image": seconds,
        "images_per_second": 1 / seconds,
        "peak_bytes": peak(device) - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=GENERATORS)
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(measure(asked.only, asked.images, asked.at_once, torch.device(asked.device))))
        return
    rows = []
    for name in GENERATORS:
        command = [sys.executable, "-m", "tests.benchmarks.rendering", "--only", name, "--images", str(asked.images)]
        command += ["--at-once", str(asked.at_once)]
        done = subprocess.run([*command, "--device", asked.device], capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if asked.json:
        print(json.dumps({"machine": machine, "rows": rows}))
        return
    print(machine)
    for row in rows:
        print(f"{row['generator']:30} {row['seconds_per_image']:8.3f} s/image {row['peak_bytes'] / 2**20:8.0f} MiB")


if __name__ == "__main__":
    main()
