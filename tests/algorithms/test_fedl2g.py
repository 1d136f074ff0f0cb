"""FedL2G by hand."""

import math

import pytest
import torch
from torch import nn

from stages.algorithms import fedl2g
from stages.algorithms.common.batches import Batches
from stages.algorithms.contract import ClientState, Task
from stages.models.split import SplitModel
from stages.randomness import Rng
from tests.helpers.messages import CLASSES, WIDTH, exchanged
from tests.helpers.toys import narrow, tiny

TASK = Task(2, 3, feature_dim=4, latent_dim=0, lr=0.1, batch_size=4, device=torch.device("cpu"))


class Line(nn.Module):
    """One number in, two logits out, all weights zero."""

    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Identity(), nn.Linear(1, 2, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head(self.features(x))


class Partly(Line):
    """The same, with weights that do not move and weights that nothing is computed from."""

    def __init__(self):
        super().__init__()
        self.features, self.unused = nn.Linear(1, 1, bias=False).requires_grad_(False), nn.Linear(1, 1)
        nn.init.ones_(self.features.weight)


@pytest.mark.parametrize("model", [Line, Partly])
def test_the_gradient_of_the_quiz(model):
    image, label = torch.ones(1, 1), torch.tensor([0])
    gradient, loss = fedl2g.quizzed(fedl2g.Hyper(), 1.0, model(), torch.zeros(2, 2), (image, label), (image, label))
    # One guided step takes the logits (0, 0) to (1/2 + v0, -1/2 + v1), where the vector of class 0 is v = 0. The quiz
    # loss log(1 + exp(b - a)) falls with a and rises with b by the probability of class 1.
    other = 1 / (1 + math.e)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1)))
    torch.testing.assert_close(gradient, torch.tensor([[-other, other], [0.0, 0.0]]))


@pytest.mark.parametrize("variant", ["logit", "feature"])
def test_the_gradient_is_the_slope_of_the_quiz_loss(variant):
    torch.manual_seed(0)
    model = SplitModel(narrow(3, 16, 3), 4, 3).double().eval()
    hyper, vectors = fedl2g.Hyper(variant=variant), torch.randn(3, 3 if variant == "logit" else 4).double()
    study, quiz = ((torch.randn(4, 3, 16, 16).double(), torch.tensor([0, 1, 1, 0])) for _ in range(2))
    gradient, _ = fedl2g.quizzed(hyper, 0.1, model, vectors, study, quiz)
    bump = torch.zeros_like(vectors)
    bump[1, 2] = 1e-4
    up, down = (fedl2g.quizzed(hyper, 0.1, model, v, study, quiz)[1] for v in (vectors + bump, vectors - bump))
    assert float(gradient[1, 2]) == pytest.approx(float(up - down) / 2e-4, rel=1e-4)
    assert gradient[2].abs().sum() == 0  # not in the study batch


def served(hyper, *uploads):
    state, shared = fedl2g.init(hyper, TASK, Rng(0))
    return shared, *fedl2g.server_update(hyper, shared, state, dict(enumerate(uploads)), Rng(0))


def test_a_vector_moves_along_the_mean_gradient_of_those_who_have_its_class():
    one = fedl2g.Upload(torch.tensor([0, 2]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    other = fedl2g.Upload(torch.tensor([0]), torch.tensor([[3.0, 0.0, 2.0]]))
    shared, _, download, _ = served(fedl2g.Hyper(server_lr=10.0), one, other)
    expected = torch.tensor([[20.0, 0.0, 10.0], [0.0, 0.0, 0.0], [0.0, 10.0, 0.0]])
    torch.testing.assert_close(shared.start - download.vectors, expected)
    assert int(download.rounds) == 1


def test_the_vectors_gradient_is_clipped():
    one = fedl2g.Upload(torch.tensor([0]), torch.tensor([[0.0, 1000.0, 0.0]]))
    shared, _, download, _ = served(fedl2g.Hyper(server_lr=1.0), one)
    torch.testing.assert_close((shared.start - download.vectors)[0], torch.tensor([0.0, 100.0, 0.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("variant", "lr"), [("logit", 0.1), ("feature", 100.0)])
def test_each_variant_has_the_authors_learning_rate(variant, lr):
    width = 3 if variant == "logit" else 4
    shared, _, download, _ = served(
        fedl2g.Hyper(variant=variant), fedl2g.Upload(torch.tensor([1]), torch.ones(1, width))
    )
    torch.testing.assert_close((shared.start - download.vectors)[1], torch.full((width,), lr), atol=1e-4, rtol=0)


def client(images=12):
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (images, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ClientState(SplitModel(tiny(3, 16, 3), 4, 3)), Batches(pictures, torch.arange(images) % 3, 4)


def test_the_quiz_is_held_out_and_stays_the_same():
    one, batches = client()
    study, quiz = fedl2g.divided(one, batches, Rng(0))
    again = fedl2g.divided(one, batches, Rng(1))
    assert len(study.labels) == 8 and len(quiz.labels) == 4
    assert torch.equal(study.images, again[0].images) and torch.equal(quiz.images, again[1].images)
    both = torch.cat([study.images, quiz.images]).flatten(1)
    assert len(both.unique(dim=0)) == 12


def test_where_training_keeps_one_order_the_quiz_is_the_first_batch():
    one, batches = client()
    study, quiz = fedl2g.divided(one, Batches(batches.images, batches.labels, 4, shuffle=False), Rng(0))
    assert torch.equal(quiz.images, batches.images[:4]) and torch.equal(study.images, batches.images[4:])


def test_a_client_of_few_images_is_quizzed_on_them():
    one, batches = client(images=3)
    assert fedl2g.divided(one, batches, Rng(0)) == (batches, batches)


def test_warming_up_learns_the_vectors_alone():
    hyper = fedl2g.Hyper(warm_up=1)
    one, batches = client()
    _, shared = fedl2g.init(hyper, TASK, Rng(0))
    before = one.model.head.weight.clone()
    upload, _ = fedl2g.client_update(hyper, shared, one, None, batches, Rng(0))
    assert torch.equal(before, one.model.head.weight) and upload.gradients.abs().sum() > 0
    download = fedl2g.Download(shared.start, torch.tensor(1))
    fedl2g.client_update(hyper, shared, one, download, batches, Rng(0))
    assert not torch.equal(before, one.model.head.weight)


@pytest.mark.parametrize(("variant", "width"), [("logit", CLASSES), ("feature", WIDTH)])
def test_messages_are_gradients_of_the_studied_classes_up_and_all_vectors_down(variant, width):
    exchange = exchanged("fedl2g", variant=variant)
    assert exchange.up == 3 * 20 * width  # a batch of 20 images, each of another class
    assert exchange.down == CLASSES * width
