"""The student: a dense network all of whose weights are trained."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vqzoo.data.seeds import epoch_generator

_MOMENTUM = 0.9


class DenseStudent:
    """A copy of a dense network, trained in training mode: batch norms gather statistics, dropout
    is on. It is a `Learner`."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """
        Args:
            model: the network; it is not changed.
            device: where to train.
        """
        self._plain = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        self._network = copy.deepcopy(self._plain).to(device).requires_grad_(True)
        self._device = device

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        return self._network

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its state dict: weights, and statistics of batch norms."""
        state: dict[str, Tensor] = self._network.state_dict()
        return state

    @contextmanager
    def epoch(self, seed: int, number: int) -> Iterator[None]:
        """Be in training mode for the block; dropout follows from seed and number. torch's global
        random state is as before afterwards."""
        devices = [self._device] if self._device.type == "cuda" else []
        self._network.train()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(
                int(torch.randint(2**31, (), generator=epoch_generator(seed, number)))
            )
            yield
        self._network.eval()

    def snapshot(self) -> dict[str, Tensor]:
        """Copy the state dict to the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Load a snapshot."""
        self._network.load_state_dict(values)

    def stored(self) -> nn.Module:
        """The network as it is now, in eval mode, on the CPU."""
        self._plain.load_state_dict(self.snapshot())
        return self._plain


def make_dense_optimizer(
    network: nn.Module, name: str, rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9; vectors (biases, norms) do not decay.

    Args:
        network: the network whose parameters are trained.
        name: "adam" or "sgd".
        rate: the initial learning rate, which `set_rates` takes from here.
        weight_decay: decay of matrices and convolutions.
    """
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "lr": rate, "first_lr": rate, "weight_decay": weight_decay},
        {"params": vectors, "lr": rate, "first_lr": rate, "weight_decay": 0.0},
    ]
    if name == "adam":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, lr=rate, momentum=_MOMENTUM)
