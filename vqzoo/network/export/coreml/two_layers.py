"""Layers whose weight is a product of two factors, as two layers."""

from torch import nn

from vqzoo.plugin import TwoFactors


def as_two_layers(layer: nn.Module, factors: TwoFactors) -> nn.Sequential | None:
    """The two layers: by `right` first, then by `left`, with the bias.

    Args:
        layer: any module with a weight.
        factors: of its weight as a matrix.

    Returns:
        None unless the layer is an nn.Linear, or an nn.Conv2d in one group, and no subclass.
    """
    rank = factors.right.shape[0]
    first: nn.Module
    second: nn.Module
    if type(layer) is nn.Linear:
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    elif type(layer) is nn.Conv2d and layer.groups == 1:
        first = nn.Conv2d(
            layer.in_channels,
            rank,
            layer.kernel_size,  # type: ignore[arg-type]  # a pair
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            bias=False,
            padding_mode=layer.padding_mode,
        )
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=layer.bias is not None)
    else:
        return None
    first.weight.data = factors.right.reshape(first.weight.shape).clone()
    second.weight.data = factors.left.reshape(second.weight.shape).clone()
    if layer.bias is not None:
        second.bias = layer.bias
    return nn.Sequential(first, second).eval()
