"""Data sets of image files in folders: a user's own, and Tiny ImageNet."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stages import foreign
from stages.artifacts.schemas import SPLITS
from stages.data.images import Dataset, Files
from stages.errors import UserError, printable
from stages.settings import Prepare

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
ROLES = {  # the split of a folder or an array by its name in lower case
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
}  # fmt: skip

Pairs = list[tuple[Path, int]]  # image files with their labels


@dataclass
class Remarks:
    """What a reader skips, or reads in a way that may surprise: counted, and reported once at the end."""

    root: Path
    others: Counter[str] = field(default_factory=Counter)  # files that are not images, by extension
    loose: Counter[Path] = field(default_factory=Counter)  # images beside class folders, which belong to no class
    inner: list[Path] = field(default_factory=list)  # folders inside a class's folder
    sentences: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        said = list(self.sentences)
        if self.inner:
            said.append(
                f"Images in inner folders belong to the class of the folder above: {listed(map(self.name, self.inner))}."
            )
        if self.loose:
            places = listed(f"{count} directly in {self.name(folder)}" for folder, count in self.loose.items())
            said.append(f"Skipped images outside the class folders ({places}).")
        if self.others:
            endings = listed(f"{count} {ending}" for ending, count in self.others.most_common())
            said.append(f"Skipped files without an image's extension ({endings}).")
        return said

    def name(self, path: Path) -> str:
        return printable(f"{path.relative_to(self.root)}/" if path != self.root else f"{path}/")


def listed(names: Iterable[str]) -> str:
    """The first five names, and how many more there are."""
    first, *more = list(names)
    return ", ".join([first, *more[:4], *([f"and {len(more) - 4} more"] if more[4:] else [])])


def source(settings: Prepare, what: str) -> Path:
    """The path that `source` names; the UserError says `what` is expected there."""
    if settings.source is None:
        raise UserError(f"The data set '{settings.dataset}' needs `source`, {what}.")
    path = Path(os.path.expanduser(settings.source))
    if not os.path.exists(path) and not settings.download:  # Path.exists raises without permission to look
        raise UserError(f"There is no {printable(str(path))}; `source` must name {what}.")
    return path


def folder(settings: Prepare) -> Dataset:
    """One subfolder of images per class, inner folders included; or train/ and perhaps val/ and test/ with such subfolders.

    Validation images become test images if there is no test/, else training images.
    """
    if settings.partition == "domains":
        return domains(settings)
    root = source(settings, "a folder with a subfolder of images per class")
    if label_table(root).is_file():
        raise UserError(f"{root} has the layout of tiny-imagenet-200; read it with `dataset=tiny-imagenet`.")
    remarks = Remarks(root)
    sets = splits(root, remarks) or {"train": root}
    test = sets.get("test") or sets.get("validation")
    if "validation" in sets:
        role = (
            "is added to the training images" if "test" in sets else "is used as the test set, since there is no test/"
        )
        remarks.sentences.append(f"{sets['validation'].name}/ {role}.")
    training = [path for path in sets.values() if path is not test]
    parts, class_names = labelled([*training, *([test] if test else [])], remarks)
    train = [pair for part in parts[: len(training)] for pair in part]
    tested = parts[len(training) :]
    known = {label for _, label in train}
    if unseen := sorted({class_names[label] for part in tested for _, label in part if label not in known}):
        remarks.sentences.append(f"Only the test set has images of {listed(unseen)}.")
    return of_files([train, *tested], class_names, settings, remarks)


def splits(root: Path, remarks: Remarks) -> dict[str, Path]:
    """The folders of training, validation and test images by role, training first; empty if `root` holds classes."""
    found: dict[str, Path] = {}
    others = []
    for path in subfolders(root, remarks):
        role = ROLES.get(path.name.lower())
        if role is None:
            others.append(path.name)
        elif role in found:
            raise UserError(f"{root} has both {found[role].name}/ and {path.name}/ as its {role} images; keep one.")
        else:
            found[role] = path
    if "train" not in found:
        if found and not others:
            raise UserError(
                f"{root} has {listed(p.name for p in found.values())} but no train/; add the training images."
            )
        return {}
    if others and len(found) == 1:  # here `train` is the name of a class
        return {}
    if others:
        remarks.sentences.append(f"Skipped {listed(others)}, beside {listed(p.name for p in found.values())}.")
    return {role: found[role] for role in SPLITS if role in found}


def domains(settings: Prepare) -> Dataset:
    """One subfolder per domain, each with subfolders of classes, not necessarily all of them; there is no test set."""
    root = source(settings, "a folder with a subfolder per domain, and in each a subfolder of images per class")
    remarks = Remarks(root)
    parts, class_names = labelled(subfolders(root, remarks), remarks)
    found = of_files(parts, class_names, settings, remarks)
    return replace(found, train=len(found.labels), domains=[len(part) for part in parts])


def labelled(sets: list[Path], remarks: Remarks) -> tuple[list[Pairs], list[str]]:
    """The (file, label) pairs of each set, and the class names: the subfolders of all sets."""
    held = [classes_in(part, remarks) for part in sets]
    if not held or not held[0]:
        where = sets[0] if sets else remarks.root
        raise UserError(f"{where} has no subfolders; put the images of each class into a subfolder.")
    class_names = sorted({name for classes in held for name in classes})
    number = {name: label for label, name in enumerate(class_names)}
    spellings: dict[str, set[str]] = {}
    for name in class_names:
        spellings.setdefault(name.casefold(), set()).add(name)
    for alike in spellings.values():
        if not any(
            alike <= classes.keys() for classes in held
        ):  # if one set has both, they are two classes, such as letters
            raise UserError(
                f"{remarks.root} has class folders whose names differ only in case: {', '.join(sorted(alike))}; "
                "give one class the same name everywhere."
            )
    return [
        [(path, number[name]) for name, inner in classes.items() for path in images_in(inner, remarks)]
        for classes in held
    ], class_names


def classes_in(root: Path, remarks: Remarks) -> dict[str, Path]:
    """The subfolders by class name: the folder's name in Unicode form NFC, since systems write é in different forms."""
    found: dict[str, Path] = {}
    for path in subfolders(root, remarks):
        name = unicodedata.normalize("NFC", path.name)
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise UserError(
                f"The name of the folder {printable(str(path))} is not UTF-8 text, so it can't name a class; rename it."
            )
        if name in found:
            raise UserError(f"{root} has two folders called {name}, in two forms of Unicode; merge them.")
        found[name] = path
    return found


def tiny_imagenet(settings: Prepare) -> Dataset:
    """The layout of tiny-imagenet-200.zip. If the sets are merged, only its 100,000 training images are dealt.

    Its test images have no labels, so if the splits are kept, its validation set becomes the test set.
    """
    root = source(settings, "the folder tiny-imagenet-200, or the folder that holds it")
    root = root / "tiny-imagenet-200" if (root / "tiny-imagenet-200").is_dir() else root
    table, remarks = label_table(root), Remarks(root)
    if not (root / "train").is_dir() or not table.is_file():
        raise UserError(f"{root} is not tiny-imagenet-200: train/ or val/val_annotations.txt is missing.")
    wnids = [path.name for path in subfolders(root / "train", remarks)]
    number = {wnid: label for label, wnid in enumerate(wnids)}
    train = [(path, number[wnid]) for wnid in wnids for path in images_in(root / "train" / wnid / "images", remarks)]
    test = []
    for line in () if settings.merge else lines(table):
        file, wnid = [*line.split("\t"), ""][:2]
        if wnid not in number:
            raise UserError(
                f"{table} gives {printable(file, 60) or 'an image'} the class '{printable(wnid, 60)}', "
                "which train/ does not have."
            )
        test.append((root / "val" / "images" / file, number[wnid]))
    names = words(root / "words.txt")
    return of_files([train, test], [names.get(wnid, wnid) for wnid in wnids], settings, remarks)


def label_table(root: Path) -> Path:
    """The file that identifies the layout of tiny-imagenet-200."""
    return root / "val" / "val_annotations.txt"


def words(table: Path) -> dict[str, str]:
    """The first word for each WordNet id of a words.txt; none if there is no such file."""
    if not table.is_file():
        return {}
    pairs = (line.partition("\t") for line in lines(table))
    return {wnid: text.split(",")[0] for wnid, _, text in pairs}


def lines(table: Path) -> list[str]:
    return foreign.parsed(table, "a table", lambda raw: raw.decode().splitlines())


def of_files(parts: list[Pairs], class_names: list[str], settings: Prepare, remarks: Remarks) -> Dataset:
    """A data set of (file, label) pairs: the training set first, then the test set if there is one."""
    pairs = [pair for part in parts for pair in part]
    labels = np.array([label for _, label in pairs], np.int64)
    files = Files([path for path, _ in pairs], settings.image_size, settings.squeeze)
    return Dataset(files, labels, len(parts[0]), class_names, str(remarks.root), notes=remarks.all())


def subfolders(root: Path, remarks: Remarks) -> list[Path]:
    """The subfolders of a folder; images directly in it belong to no class."""
    found = entries(root)
    inner = [path for path in found if path.is_dir()]
    if loose := sum(map(is_image, found)) - sum(map(is_image, inner)):
        remarks.loose[root] = loose
    return inner


def images_in(root: Path, remarks: Remarks) -> list[Path]:
    """The image files of a class, including inner folders; UserError if there are none."""
    paths: list[Path] = []
    others: Counter[str] = Counter()
    for path in walked(root, remarks, ()):
        if is_image(path):
            paths.append(path)
        else:
            others[printable(path.suffix.lower(), 20) or "without extension"] += 1
    if not paths:
        held = f" but {listed(f'{count} {ending}' for ending, count in others.items())}" if others else ""
        raise UserError(
            f"{root} holds no images ({', '.join(ENDINGS)}){held}; add images to this class or remove the folder."
        )
    remarks.others += others
    return paths


def is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def walked(root: Path, remarks: Remarks, above: tuple[Path, ...]) -> Iterator[Path]:
    """Every file below a class's folder; links to a folder above are not followed."""
    above = (*above, root.resolve())
    for path in entries(root):
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            remarks.inner.append(path)
            yield from walked(path, remarks, above)


def entries(root: Path) -> list[Path]:
    """The paths in a folder, sorted, without the hidden files of systems and tools."""
    try:
        return sorted(path for path in root.iterdir() if not path.name.startswith((".", "__")))
    except OSError as error:
        raise UserError(f"{printable(str(root))} can't be read as a folder ({error.strerror}).") from error
