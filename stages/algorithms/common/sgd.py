"""Local training: SGD along an objective."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain, islice

import torch
from torch import Tensor, nn

from stages import torch_private
from stages.algorithms.common.batches import Steps
from stages.algorithms.common.cuda_graphs import replayable
from stages.algorithms.contract import Metrics

LossAndMetrics = tuple[Tensor, Metrics]  # a loss to descend, and at most MOST scalars to report
MOST = 32


class SGD:
    """Plain SGD over modules; with a `max_norm` the gradient of each is clipped to it on its own."""

    def __init__(self, lr: float, *modules: nn.Module, max_norm: float | None = None):
        self._lr, self._max_norm = lr, max_norm
        self._groups = [list(module.parameters()) for module in modules]

    def minimise(self, objective: Callable[..., LossAndMetrics], *sources: Steps) -> dict[str, Tensor]:
        """One step a batch along `objective(*batch)`: a loss, and the same scalars each time, of which the means come back.

        A batch is what all sources give for a step, one after the other; the first source says how many steps there are.
        On a GPU the steps are replayed from graphs (`stages.algorithms.common.cuda_graphs`), so the objective must compute with
        tensors alone: what it reads stays where it is, what it writes it writes in place, and no call leaves anything that it made
        to the next one. Raises ValueError for more than MOST scalars.
        """
        device = self._groups[0][0].device
        sums, names = torch.zeros(MOST, device=device), dict[str, None]()

        def step(*given: Tensor) -> None:
            rest = iter(given)
            taken = [source.take(*islice(rest, width)) for source, width in zip(sources, widths, strict=True)]
            loss, measured = objective(*chain(*taken))
            self.step(loss)
            if len(measured) > MOST:
                raise ValueError(f"An objective reports at most {MOST} scalars, not {len(measured)}.")
            if measured:
                names.update(dict.fromkeys(measured))
                sums[: len(measured)].add_(torch.stack([value.detach() for value in measured.values()]))

        count, widths = 0, [0] * len(sources)
        with replayable(step, device, self._kind(objective)) as run:
            for count, given in enumerate(zip(*(source.given for source in sources), strict=False), 1):  # noqa: B007
                widths = [len(each) for each in given]
                run(*chain(*given))
        self._forget()
        return dict(zip(names, sums / max(count, 1), strict=False))

    def _kind(self, objective: Callable[..., LossAndMetrics]) -> Hashable:
        """What tells steps apart that can be captured from steps that can't: their code and the networks they move."""
        return objective.__code__, tuple(parameter.shape for group in self._groups for parameter in group)

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`."""
        self._forget()
        torch.autograd.backward(loss)
        for group in self._groups:
            moving: dict[Tensor, Tensor] = {
                parameter: parameter.grad for parameter in group if parameter.grad is not None
            }
            if moving:
                if self._max_norm is not None:
                    torch_private.clip(list(moving.values()), self._max_norm)
                self._move(list(moving), list(moving.values()))

    @torch.no_grad()
    def _move(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        torch_private.descend(parameters, gradients, self._lr)

    def _forget(self) -> None:
        """Let go of the gradients: kept, they would take the memory of a second model."""
        for parameter in (parameter for group in self._groups for parameter in group):
            parameter.grad = None


class Adam(SGD):
    """The same with Adam (Kingma and Ba, ICLR 2015) in place of SGD."""

    def __init__(
        self, lr: float, *modules: nn.Module, max_norm: float | None = None, betas: tuple[float, float] = (0.9, 0.999)
    ):
        super().__init__(lr, *modules, max_norm=max_norm)
        self._betas = betas
        self.moments: dict[Tensor, tuple[Tensor, Tensor, Tensor]] = {  # of gradients, of their squares, the steps done
            parameter: (torch.zeros_like(parameter), torch.zeros_like(parameter), parameter.new_zeros(()))
            for group in self._groups
            for parameter in group
        }

    @torch.no_grad()
    def _move(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        means, squares, steps = map(list, zip(*(self.moments[p] for p in parameters), strict=True))
        torch_private.descend_by_adam(parameters, gradients, means, squares, steps, self._lr, self._betas)
