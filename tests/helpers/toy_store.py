"""Data and latents of a small federation: 4 clients, 5 classes, images that give their class away."""

import numpy as np

from stages.artifacts.store import Store

CLIENTS, CLASSES, TRAIN, VALIDATION, TEST = 4, 5, 24, 6, 10


def write_toy_data(store: Store, name: str = "toy", size: int = 16, seed: int = 0, clients: int = CLIENTS):
    """Client k lacks class k; every class has its own colour and noise on top."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (CLASSES, 3, 1, 1))
    counts = np.zeros((clients, CLASSES), np.int64)
    with store.write("data", name, {"dataset": "toy"}, seed, {}) as writer:
        for split, each in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
            labels = np.concatenate([rng.choice([c for c in range(CLASSES) if c != k], each) for k in range(clients)])
            noise = rng.integers(-40, 40, (len(labels), 3, size, size))
            writer.array(f"{split}/images", (colours[labels] + noise).clip(0, 255).astype(np.uint8))
            writer.array(f"{split}/labels", labels.astype(np.int64))
            writer.array(f"{split}/offsets", np.arange(clients + 1, dtype=np.int64) * each)
            np.add.at(counts, (np.arange(clients).repeat(each), labels), 1)
        writer.array("counts", counts)
        writer.attributes["class_names"] = [f"class {label}" for label in range(CLASSES)]
    return store.open(writer.ref)


def write_toy_latents(store: Store, name: str = "bank", count: int = 40, width: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    with store.write("latents", name, {}, seed, {}) as writer:
        writer.array("latents", rng.standard_normal((count, width)).astype(np.float32))
        writer.array("images", rng.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8))
        writer.attributes["generator"] = {"family": "factory", "factory": "tests.helpers.toys:linear"}
    return store.open(writer.ref)
