import base64
import io

import numpy as np
from PIL import Image

from stages.artifacts import schemas
from stages.artifacts.store import Store
from stages.reporting.pairs import sheets
from tests.helpers.made_runs import made_data, made_run


def pixels(sheet):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.png.partition(",")[2]))))


def test_each_picture_lies_at_its_round_and_class(tmp_path):
    store = Store(tmp_path)
    # Round 1 has pairs of classes 2 and 0, round 5 of class 1 alone; each picture is one grey level.
    levels = np.array([[20, 10], [30, 99]], np.uint8)
    arrays = {
        "pairs/rounds": [1, 5], "pairs/labels": np.array([[2, 0], [1, -1]]),
        "pairs/images": np.broadcast_to(levels[..., None, None, None], (2, 2, 3, 4, 4)),
    }  # fmt: skip
    run = schemas.read(made_run(store, "a", made_data(store), **arrays))
    (sheet,) = sheets(run, ["zero", "one"])
    assert (sheet.rounds, sheet.classes, sheet.columns) == ([1, 5], ["zero", "one", "class 2"], 10)
    image = pixels(sheet)
    assert image.shape == (200, 1000, 3)  # two rounds, ten cells of 100 pixels
    assert image[50:151:100, 50:251:100, 0].tolist() == [[10, 238, 20], [238, 30, 238]]  # 238: no picture


def test_many_classes_and_rounds_are_thinned_and_wrapped(tmp_path):
    store = Store(tmp_path)
    arrays = {
        "pairs/rounds": np.arange(11), "pairs/labels": np.tile(np.arange(25), (11, 1)),
        "pairs/images": np.zeros((11, 25, 3, 128, 128), np.uint8),
    }  # fmt: skip
    found = sheets(schemas.read(made_run(store, "a", made_data(store), **arrays)), [str(label) for label in range(25)])
    assert [len(sheet.classes) for sheet in found] == [20, 5]
    assert found[0].rounds == [0, 2, 4, 6, 8, 10]
    assert pixels(found[1]).shape == (300, 1000, 3)


def test_a_run_without_pairs_has_no_sheet(tmp_path):
    store = Store(tmp_path)
    none = {
        "pairs/rounds": np.zeros(0, int), "pairs/labels": np.zeros((0, 0), int),
        "pairs/images": np.zeros((0, 0, 3, 1, 1), np.uint8),
    }  # fmt: skip
    assert sheets(schemas.read(made_run(store, "a", made_data(store), **none)), []) == []
