"""Training of small networks on Fashion-MNIST, as `tools.train_embedded` runs it."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqzoo.data.augment import augment
from vqzoo.data.fmnist import LabelledImages
from vqzoo.errors import UsageError, one_line
from vqzoo.models.embedded import FMNIST_MEAN, FMNIST_STD


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of training, recorded in the saved file.

    The defaults are those of `alexnet_mini`. `largest_gradient` bounds the norm of all gradients
    together; `bfloat16` says whether matrix products run in it (autocast).
    """

    model: str = "alexnet_mini"
    seed: int = 0
    epochs: int = 40
    batch_size: int = 256
    learning_rate: float = 1.5e-3
    warmup_epochs: float = 2.0
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    drop_rate: float = 0.5
    crop_padding: int = 2
    erase_side: int = 10
    erase_probability: float = 0.5
    ema_decay: float = 0.998
    largest_gradient: float | None = None
    bfloat16: bool = True


@dataclass(frozen=True)
class Step:
    """The outcome of a training step.

    Attributes:
        epoch: from 0.
        step: within the epoch, from 0.
        loss: of the batch.
        accuracy: top-1 on the held-out images in percent; None except at the end of an epoch.
    """

    epoch: int
    step: int
    loss: Tensor
    accuracy: float | None


def train(
    data: LabelledImages,
    held_out: LabelledImages,
    recipe: Recipe,
    device: torch.device,
    on_step: Callable[[Step], None],
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train the recipe's network.

    Weights and optimizer state are float32. The same `recipe.seed` gives the same weights on the
    same machine with the same number of threads. The caller's random state is not changed.

    Args:
        data: the images to train on.
        held_out: the images to measure the accuracy on after each epoch.
        recipe: the hyperparameters.
        device: the device to train on.
        on_step: called after each step.
        checkpoint: the file that takes the state after each epoch, and where training goes on.

    Returns:
        The averaged network, float32, in eval mode.

    Raises:
        UsageError: the checkpoint is damaged, or of another recipe.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        model = timm.create_model(recipe.model, drop_rate=recipe.drop_rate)
        model = model.to(device, memory_format=torch.channels_last)
        average = copy.deepcopy(model).eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(
            _parameter_groups(model, recipe), lr=recipe.learning_rate, fused=True
        )
        state = _State(model, average, optimizer, recipe, device)
        first_epoch = state.load(checkpoint) if checkpoint and checkpoint.exists() else 0
        images, labels = data.images.to(device), data.labels.to(device)
        steps_per_epoch = len(data) // recipe.batch_size
        for epoch in range(first_epoch, recipe.epochs):
            for step, (x, y) in enumerate(_shuffled_batches(images, labels, recipe)):
                done = epoch * steps_per_epoch + step
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * schedule(done, steps_per_epoch, recipe)
                with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
                    logits = model(x)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=recipe.label_smoothing)
                optimizer.zero_grad()
                loss.backward()
                if recipe.largest_gradient is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.largest_gradient)
                optimizer.step()
                _update_average(average, model, done, recipe.ema_decay)
                last = step == steps_per_epoch - 1
                if last and checkpoint:
                    state.save(checkpoint, epoch + 1)
                top1 = accuracy(average, held_out, device) if last else None
                on_step(Step(epoch, step, loss.detach(), top1))
    return average


@dataclass(frozen=True)
class _State:
    """What training changes, for the checkpoint."""

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    device: torch.device

    def save(self, path: Path, epochs_done: int) -> None:
        cuda = self.device.type == "cuda"
        state = {
            "recipe": asdict(self.recipe),
            "epochs_done": epochs_done,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
        }
        partial = path.with_name(path.name + ".tmp")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> int:
        """Take over the state and return the number of epochs done."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise UsageError(f"{path} is damaged ({one_line(error)}): delete it") from error
        if state["recipe"] != asdict(self.recipe):
            raise UsageError(f"{path} belongs to another recipe: delete it or choose another --out")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        return int(state["epochs_done"])


def schedule(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The factor of the learning rate: linear warm-up, then half a cosine down to 0."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    total = recipe.epochs * steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))


def erase(images: Tensor, side: int, probability: float) -> Tensor:
    """Set a square of each image to the mean (0) with the given probability.

    Random erasing (Zhong et al. 2017, arXiv 1708.04896) with squares of one size, as in Cutout
    (DeVries, Taylor 2017). Draws from torch's global generator of the images' device.

    Args:
        images: (N, C, H, W), normalized.
        side: of the square in pixels; a square may extend past the border.
        probability: with which an image gets a square.

    Returns:
        (N, C, H, W).
    """
    n, _, height, width = images.shape
    top = torch.randint(1 - side, height, (n, 1), device=images.device)
    left = torch.randint(1 - side, width, (n, 1), device=images.device)
    chosen = torch.rand(n, 1, 1, device=images.device) < probability
    rows = torch.arange(height, device=images.device) - top
    columns = torch.arange(width, device=images.device) - left
    inside_rows, inside_columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    square = inside_rows[:, :, None] & inside_columns[:, None, :] & chosen
    return images.masked_fill(square[:, None], 0.0)


def normalize(images: Tensor) -> Tensor:
    """Convert uint8 images to float32, normalized by the mean and standard deviation of
    Fashion-MNIST."""
    mean = 255 * torch.tensor(FMNIST_MEAN, device=images.device).view(1, -1, 1, 1)
    std = 255 * torch.tensor(FMNIST_STD, device=images.device).view(1, -1, 1, 1)
    return (images.float() - mean) / std


@torch.inference_mode()
def accuracy(model: nn.Module, data: LabelledImages, device: torch.device) -> float:
    """Top-1 accuracy in percent, computed in float32; `model` must be in eval mode."""
    correct = 0
    for start in range(0, len(data), 500):
        images, labels = data[start : start + 500]
        logits = model(normalize(images.to(device)))
        correct += int((logits.argmax(1) == labels.to(device)).sum())
    return 100 * correct / len(data)


def _shuffled_batches(
    images: Tensor, labels: Tensor, recipe: Recipe
) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(labels), device=labels.device)
    for batch in order.split(recipe.batch_size):
        if len(batch) == recipe.batch_size:
            x = normalize(augment(images[batch], recipe.crop_padding))
            x = erase(x, recipe.erase_side, recipe.erase_probability)
            yield x.contiguous(memory_format=torch.channels_last), labels[batch]


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    # The decay grows from 0.1, so that the average forgets the random initial weights.
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)
    for mean, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mean.lerp_(buffer, weight) if mean.is_floating_point() else mean.copy_(buffer)
