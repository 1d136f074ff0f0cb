import json

import numpy as np
import pytest

from stages.artifacts.schemas import SPLITS, read
from stages.artifacts.store import Store
from stages.data.shares import cut, rank_in_class
from stages.errors import UserError
from stages.observer import Observer
from stages.prepare import prepare
from stages.randomness import Rng
from stages.settings import Prepare

N_TRAIN, N_TEST, CLASSES = 480, 120, 4


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An .npz in which every image tells its own number (red and green) and its label (blue)."""
    numbers = np.arange(N_TRAIN + N_TEST)
    labels = numbers % CLASSES
    images = np.broadcast_to(
        np.stack([numbers // 256, numbers % 256, labels], 1)[:, None, None], (len(numbers), 8, 8, 3)
    )
    images = images.astype(np.uint8)
    path = tmp_path_factory.mktemp("source") / "numbered.npz"
    parts = {"train": slice(N_TRAIN), "test": slice(N_TRAIN, None)}
    np.savez(path, **{f"{kind}_{name}": values[part] for name, part in parts.items()
                      for kind, values in (("x", images), ("y", labels))})  # fmt: skip
    return path


@pytest.fixture
def make(tmp_path, source):
    def made(observer=None, **chosen):
        given = {"dataset": "npz", "source": str(source), "image_size": 8, "clients": 5, "beta": 0.5, **chosen}
        return read(prepare(Store(tmp_path / "store"), "numbered", Prepare(**given), observer or Observer()))

    return made


def numbers(split):
    """Which images of the source the split holds."""
    return split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 1, 0, 0]


def held(data, client):
    return [numbers(getattr(data, split))[getattr(data, split).rows(client)].tolist() for split in SPLITS]


def test_the_artifact_holds_every_image_once_with_its_label(make):
    data = make()
    everything = np.concatenate([numbers(getattr(data, split)) for split in SPLITS])
    assert sorted(everything) == list(range(N_TRAIN + N_TEST))
    counts = np.zeros((5, CLASSES), int)
    for split in (data.train, data.validation, data.test):
        assert (split.labels == numbers(split) % CLASSES).all() and (split.labels == split.images[:, 2, 0, 0]).all()
        np.add.at(counts, (np.repeat(np.arange(5), np.diff(split.offsets)), split.labels), 1)
    assert (data.counts == counts).all()
    assert data.class_names == ["0", "1", "2", "3"]
    assert data.artifact.settings["beta"] == 0.5 and data.artifact.attributes["seed"] == 0


def test_it_opens_with_plain_zarr(make):
    import zarr

    group = zarr.open_group(make().artifact.path, mode="r")
    for split in SPLITS:
        assert group[f"{split}/images"].dtype == np.uint8 and group[f"{split}/images"].shape[1:] == (3, 8, 8)
        assert group[f"{split}/labels"].dtype == group[f"{split}/offsets"].dtype == group["counts"].dtype == np.int64


def test_each_client_is_cut_by_the_fractions(make):
    data = make(partition="iid")  # 120 images each: 30 for test, 9 of the other 90 for validation
    assert [np.diff(getattr(data, split).offsets).tolist() for split in SPLITS] == [[81] * 5, [9] * 5, [30] * 5]
    data = make(partition="iid", test_fraction=0.5, validation_fraction=0.0)
    assert [np.diff(getattr(data, split).offsets).tolist() for split in SPLITS] == [[60] * 5, [0] * 5, [60] * 5]


def test_keep_splits_keeps_the_test_set_apart(make):
    data = make(merge=False, partition="pathological")
    assert numbers(data.test).min() >= N_TRAIN and len(data.test.labels) == N_TEST
    assert max(numbers(data.train).max(), numbers(data.validation).max()) < N_TRAIN
    for client in range(5):
        mine = [
            np.bincount(part.labels[part.rows(client)], minlength=CLASSES) for part in (data.train, data.validation)
        ]
        test = np.bincount(data.test.labels[data.test.rows(client)], minlength=CLASSES)
        assert np.abs(sum(mine) / 4 - test).max() <= 1  # 120 training and 30 test images a class


def test_keep_splits_needs_a_test_set(tmp_path):
    with pytest.raises(UserError, match="digits has no test set to keep; prepare it with `merge=on`"):
        prepare(Store(tmp_path), "digits", Prepare(merge=False))


def test_few_shot_thins_out_the_training_images_alone(make):
    full, few = make(partition="iid"), make(partition="iid", few_shot=3)
    for client in range(5):
        labels = few.train.labels[few.train.rows(client)]
        assert np.bincount(labels, minlength=CLASSES).tolist() == [3] * CLASSES
        assert held(few, client)[1:] == held(full, client)[1:]
        assert set(held(few, client)[0]) < set(held(full, client)[0])
    assert few.counts.sum() == len(few.train.labels) + len(few.validation.labels) + len(few.test.labels)


def test_counts_are_met_and_say_how_many_clients_there_are(make, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"Size of samples for labels in clients": [[[0, 10], [3, 2]], [[1, 40]], [[2, 8]]]}))
    notes = Observer()
    notes.note = lambda message: said.append(message)
    said = []
    data = make(notes, partition="counts", counts=str(path))
    assert data.counts.tolist() == [[10, 0, 0, 2], [0, 40, 0, 0], [0, 0, 8, 0]]
    assert data.artifact.settings["clients"] == 3 and said == ["The partition has 3 clients."]


def test_same_seed_same_artifact(make):
    first, same, other = make(seed=1), make(seed=1), make(seed=2)
    for split in SPLITS:
        assert (numbers(getattr(first, split)) == numbers(getattr(same, split))).all()
    assert held(first, 0) != held(other, 0)


def test_a_client_is_cut_without_regard_to_the_others():
    rows = np.arange(100, 120)
    alone = cut(rows, 0.25, Rng(0).at("test", 3))
    for client in (0, 1, 2):
        cut(rows, 0.25, Rng(0).at("test", client))
    after = cut(rows, 0.25, Rng(0).at("test", 3))
    assert [part.tolist() for part in alone] == [part.tolist() for part in after]
    assert sorted(np.concatenate(alone)) == rows.tolist()
    assert all((np.diff(part) > 0).all() for part in alone)  # both keep their order
    assert cut(rows, 0.25, Rng(0).at("test", 4))[1].tolist() != alone[1].tolist()


@pytest.mark.parametrize(
    ("n", "fraction", "taken"), [(10, 0.25, 3), (30, 0.1, 3), (1, 0.1, 1), (7, 0.0, 0), (0, 0.5, 0)]
)
def test_the_part_cut_off_is_rounded_up(n, fraction, taken):
    assert [len(part) for part in cut(np.arange(n), fraction, Rng(0))] == [n - taken, taken]


def test_rank_in_class():
    assert rank_in_class(np.array([3, 1, 3, 3, 1])).tolist() == [0, 0, 1, 2, 1]


def test_a_client_without_samples_is_named(make, tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("5,5,5,5\n0,0,0,0\n")
    with pytest.raises(UserError, match="Client 1 has no training images, of 0 in all"):
        make(partition="counts", counts=str(path))
    path.write_text("5,5,5,5\n0,1,0,0\n")
    with pytest.raises(UserError, match="Client 1 has no training images, of 1 in all"):
        make(partition="counts", counts=str(path))


def test_nothing_is_left_when_an_image_turns_out_unreadable(tmp_path):
    for name in "ab":
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "own" / name / f"{number}.png").touch()
    store = Store(tmp_path / "store")
    with pytest.raises(UserError, match=r"\d+\.png can't be read as an image"):
        prepare(store, "own", Prepare(dataset="folder", source=str(tmp_path / "own"), clients=1))
    assert store.versions("data", "own") == [] and store.leftovers() == []


def test_progress_adds_up(make):
    class Counter(Observer):
        total = done = 0

        def start(self, task, total, done=0):
            self.total += total

        def advance(self, steps=1, **facts):
            self.done += steps

    counter = Counter()
    make(counter)
    assert counter.total == counter.done == N_TRAIN + N_TEST


def test_digits_are_the_default(tmp_path):
    data = read(prepare(Store(tmp_path), "digits", Prepare()))
    assert data.clients == 20 and data.counts.sum() == 1797 and data.counts.sum(1).min() >= 40
    assert data.train.images.shape[1:] == (3, 32, 32)
