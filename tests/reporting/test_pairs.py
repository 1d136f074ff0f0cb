import base64
import io

import numpy as np
from PIL import Image

from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.reporting.pairs import sheets
from tests.helpers.made_runs import made_data, made_run


def pixels(sheet):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.picture.partition(",")[2]))))


def test_each_picture_lies_at_its_round_and_class(tmp_path):
    store = Store(tmp_path)
    # Round 1 has pairs of classes 2 and 0, round 5 of class 1 alone; each picture is one grey level.
    levels = np.array([[20, 10], [30, 99]], np.uint8)
    arrays = {
        "pairs/rounds": [1, 5], "pairs/labels": np.array([[2, 0], [1, -1]]),
        "pairs/images": np.broadcast_to(levels[..., None, None, None], (2, 2, 3, 12, 12)),
    }  # fmt: skip
    run = schemas.read(made_run(store, "a", made_data(store), **arrays))
    (sheet,) = sheets(run, ["zero", "one"])
    assert (sheet.rounds, sheet.classes, sheet.columns) == ([1, 5], ["zero", "one", "class 2"], 10)
    image = pixels(sheet)
    assert image.shape == (26, 130, 3)  # two rounds, ten cells of 12 pixels and one between
    found = image[6::13, 6:33:13, 0].astype(int)
    assert np.abs(found - [[10, 128, 20], [128, 30, 128]]).max() < 4  # 128: no picture; a JPEG keeps colours nearly


def test_many_classes_and_rounds_are_thinned_and_wrapped(tmp_path):
    store = Store(tmp_path)
    arrays = {
        "pairs/rounds": np.arange(11), "pairs/labels": np.tile(np.arange(25), (11, 1)),
        "pairs/images": np.zeros((11, 25, 3, 128, 128), np.uint8),
    }  # fmt: skip
    run, names = schemas.read(made_run(store, "a", made_data(store), **arrays)), [str(label) for label in range(25)]
    found = sheets(run, names)
    assert [len(sheet.classes) for sheet in found] == [20, 5]
    assert found[0].rounds == [0, 2, 4, 6, 8, 10]
    assert pixels(found[1]).shape == (6 * 97, 20 * 97, 3)  # large pictures are averaged down
    assert sheets(run, names, runs=9)[0].rounds == [0, 10]  # less of each where many share a page


def test_a_run_without_pairs_has_no_sheet(tmp_path):
    store = Store(tmp_path)
    none = {
        "pairs/rounds": np.zeros(0, int), "pairs/labels": np.zeros((0, 0), int),
        "pairs/images": np.zeros((0, 0, 3, 1, 1), np.uint8),
    }  # fmt: skip
    assert sheets(schemas.read(made_run(store, "a", made_data(store), **none)), []) == []
