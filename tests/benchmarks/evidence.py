"""Is the built-in generator a real one? Frechet distances, interpolation in W, nearest training images, and pictures.

    python -m tests.benchmarks.evidence cifar10.npz FOLDER --leave-out cifar10-mini.npz

The features are those of a classifier that is trained here on the same images as the generator. Without --leave-out
no image is held out, and the rows that need such images say nothing about copying.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from stages.data import datasets
from stages.generators.builtin.generator import WEIGHTS, Builtin, pretrained
from stages.generators.builtin.train import rows_to_train_on
from stages.models import split
from stages.pixels import normalised
from stages.randomness import Rng
from stages.settings import Prepare
from tests.helpers import standin, untrained

CPU = torch.device("cpu")
BATCH = 128  # images per forward
SAMPLES = 10_000  # images of a Frechet distance


def classifier(images: Tensor, labels: Tensor, epochs: int) -> split.SplitModel:
    """A ResNet-8 on uint8 images [n, 3, 32, 32]: flips, SGD with momentum, one cycle."""
    rng = Rng(0).at("classifier")
    model = split.build("resnet8", (3, 32, 32), 10, 128, rng.seed("weights"))
    steps = epochs * (len(images) // 128)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(sgd, 0.1, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=rng.torch("order", epoch))
        for i, rows in enumerate(order.split(128)[: len(images) // 128]):
            x = normalised(images[rows])
            x = x.flip(3) if i % 2 else x
            sgd.zero_grad()
            F.cross_entropy(model(x), labels[rows]).backward()
            sgd.step()
            cycle.step()
    return model.eval()


@torch.no_grad()
def features(model: split.SplitModel, images: Tensor) -> Tensor:
    """float64 [n, 128] of uint8 images."""
    return torch.cat([model.base(normalised(part)) for part in images.split(BATCH)]).double()


def frechet(a: Tensor, b: Tensor) -> float:
    """Distance of the two Gaussians: |m - n|^2 + tr(S + T - 2 (S T)^(1/2))."""
    left, right = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(left)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ right @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + left.trace() + right.trace() - 2 * cross)


def drawn(generator, n: int) -> Tensor:
    latents = generator.sample_latents(n, torch.Generator().manual_seed(0))
    return torch.cat([generator.render(part) for part in latents.split(BATCH)])


def paths(generator: Builtin, count: int, steps: int = 9) -> Tensor:
    """uint8 [count, steps, 3, 32, 32]: straight lines in W between sampled latents."""
    ends = generator.sample_latents(2 * count, torch.Generator().manual_seed(2)).view(count, 2, 1, -1)
    t = torch.linspace(0, 1, steps)[:, None]
    return generator.render(torch.lerp(ends[:, 0], ends[:, 1], t).flatten(0, 1)).view(count, steps, 3, 32, 32)


def nearest(queries: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Row of the nearest known feature, and how far it is, for each query."""
    distances, rows = torch.cdist(queries, known).min(1)
    return rows, distances


def save(images: Tensor, path: Path) -> None:
    """uint8 [rows, columns, 3, 32, 32] as one picture."""
    rows, columns = images.shape[:2]
    pixels = images.permute(0, 3, 1, 4, 2).reshape(rows * 32, columns * 32, 3)
    Image.fromarray(pixels.numpy()).resize((columns * 64, rows * 64), Image.Resampling.NEAREST).save(
        path, optimize=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--leave-out", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(asked.threads)
    dataset = datasets.read(Prepare(dataset="npz", source=str(asked.source), image_size=32))
    seen = rows_to_train_on(len(dataset.labels), asked.leave_out)
    unseen = np.setdiff1d(np.arange(len(dataset.labels)), seen) if asked.leave_out else seen
    train, held = torch.from_numpy(dataset.images[seen]), torch.from_numpy(dataset.images[unseen])
    begun = time.monotonic()
    model = classifier(train, torch.from_numpy(dataset.labels[seen]), asked.epochs)
    with torch.no_grad():
        hits = sum(
            int((model(normalised(x)).argmax(1) == y).sum())
            for x, y in zip(held.split(512), torch.from_numpy(dataset.labels[unseen]).split(512), strict=True)
        )
    print(f"classifier: {hits / len(held):.1%} of held-out images right, {time.monotonic() - begun:.0f} s")
    generator = pretrained(CPU, asked.weights)
    known = features(model, train)
    halves = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(3))]
    of_held, made = features(model, held[:SAMPLES]), drawn(generator, SAMPLES)
    sets = {
        "training images": halves[:SAMPLES], "held-out images": of_held, "trained generator": features(model, made),
        "untrained network": features(model, drawn(untrained.make(CPU), SAMPLES)),
        "stand-in": features(model, drawn(standin.make(CPU), SAMPLES)),
    }  # fmt: skip
    for name, found in sets.items():
        print(f"Frechet distance of {name} to training images: {frechet(found, halves[SAMPLES:]):.2f}")
    lines = paths(generator, 500)
    steps = lines.float().diff(dim=1).square().mean((2, 3, 4)).sqrt()
    print(
        f"interpolation: a step of 8 changes {steps.mean():.1f} grey levels (rms), the largest of a path "
        f"{(steps.amax(1) / steps.mean(1)).mean():.2f} times its mean; unrelated samples differ by "
        f"{(lines[:, 0].float() - lines[:, -1].float()).square().mean((1, 2, 3)).sqrt().mean():.1f}"
    )
    for name, queries in (("samples", sets["trained generator"][:2000]), ("held-out images", of_held[:2000])):
        print(f"nearest training image of {name}: median distance {nearest(queries, known)[1].median():.3f}")
    rows, _ = nearest(sets["trained generator"][:12], known)
    pixels, _ = nearest(made[:12].flatten(1).float(), train.flatten(1).float())
    save(made[:128].view(8, 16, 3, 32, 32), asked.folder / "samples.png")
    save(lines[:8], asked.folder / "interpolation.png")
    save(torch.stack([made[:12], train[rows], train[pixels]]), asked.folder / "neighbours.png")


if __name__ == "__main__":
    main()
