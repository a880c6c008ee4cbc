"""The part of a record that describes a budget for the whole network, and how it was met."""

from pydantic import Field

from vqzoo.report.block import Block, Count


class HeldOutRecord(Block):
    """How far a network is from the dense one on images held out of calibration."""

    data: str
    """The images, without local folders."""
    images: Count
    """Number of images."""
    kl: float | None
    """Mean KL(dense ‖ compressed) in nats; null where logits were not finite."""
    drop: float | None
    """Points of top-1 lost; null without labels."""
    ci95: float | None
    """Half-width of its 95% confidence interval in points; null without labels."""
    expected_drop: float | None = None
    """Points of top-1 that the dense network's probabilities expect to be lost; null without
    labels, and in older records."""
    drop_bound: float | None = None
    """With 95% confidence no more than this is lost: what `max_drop` bounds."""


class PriceStep(Block):
    """One price that the search tried."""

    price: float
    """The price of a bit, in squared logits."""
    bytes: Count
    """Size of the weights file."""
    predicted_loss: float | None
    """As in the budget."""
    held_out: HeldOutRecord | None
    """On the images held out; null where the search needs none."""


class BudgetRecord(Block):
    """One price of a bit for the whole network: what it was chosen for, and what was foreseen.

    What was measured on the artifact stands in `accuracy` and `agreement`.
    """

    size: Count | None
    """The size in bytes that the file had to keep to; null for other budgets."""
    max_kl: float | None
    """The divergence on held-out images to keep to, in nats; null for other budgets."""
    max_drop: float | None
    """The points of top-1 on held-out images to keep to; null for other budgets."""
    price: float
    """The price of a bit, lambda, in squared logits."""
    predicted_loss: float | None
    """Squared change of the centred logits that second-order statistics predict, halved: the sum
    over `layers`; null without calibration. `agreement.logit_change` is what was measured."""
    layers: dict[str, float]
    """Layer to its share of the predicted loss. Where no images say what errors do, losing all
    weights of a layer is taken to cost 100 squared logits."""
    held_out: HeldOutRecord | None
    """The network on images held out of calibration; null where the search needs none."""
    steps: tuple[PriceStep, ...]
    """What the search tried, in order."""
    methods: tuple[str, ...] = ()
    """The methods that layers could have; absent in older records."""
    remark: str | None = Field(default=None)
    """Why the file is no nearer to the budget; absent where it is near."""
