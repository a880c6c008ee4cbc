"""Codes whose method has been looked up, and whose floats are at hand, for many products."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vqzoo.compression.decode import decode, with_floats
from vqzoo.compression.products.kept import KeptMatrix
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.plugin.code import Floats, Indices, MethodCode
from vqzoo.plugin.isolation import isolated, named
from vqzoo.plugin.manager import Plugins
from vqzoo.plugin.method import Method


@dataclass(frozen=True, eq=False)
class Prepared:
    """A code with everything that its products have in common.

    Attributes:
        compressed: the code of an (m, n) matrix, with the floats that replace its own.
        plugins: the installed methods.
        method: the one that decodes it.
        who: the method's name, for errors.
        row_step: the number of rows whose multiples `decode_rows` can begin and end at; 0 where it
            cannot.
        has_products: whether `multiply` may have an answer.
        has_column_products: whether `multiply_by_columns` may have one.
        floats: the code's floats as float32, by name; None where they are not at hand, and become
            float32 anew each time.
        kept: the decoded matrix of a small code.
    """

    compressed: MethodCode
    plugins: Plugins
    method: Method
    who: str
    row_step: int
    has_products: bool
    has_column_products: bool
    floats: Mapping[str, Tensor] | None
    kept: KeptMatrix

    def multiply(self, x: Tensor) -> Tensor | None:
        """Multiply x by the matrix with the method's `multiply`, without gradients.

        Args:
            x: float32, (..., n), on the device of the code.

        Returns:
            x·Wᵀ, (..., m); None where the method has no such product on this device, or the code
            has children or no integers.
        """
        code = self.compressed.code
        m, n = code.shape
        if not self.has_products or x.shape[-1] != n:
            return None
        if x.device.type not in self.method.multiply_devices:
            return None
        with isolated(self.who):
            rows = x.detach().reshape(-1, n).contiguous()
            product = self.method.multiply(code, self.current_floats(), rows)
        return None if product is None else product.view(*x.shape[:-1], m)

    def multiply_by_columns(self, panels: Panels) -> Tensor | None:
        """Multiply columns by the matrix with the method's `multiply_by_columns`.

        Args:
            panels: X, (n, count); the code is on the CPU.

        Returns:
            W·X, (m, count); None where the method has no such product, or the code has children.
        """
        if not self.has_column_products:
            return None
        with isolated(self.who):
            return self.method.multiply_by_columns(
                self.compressed.code, self.current_floats(), panels
            )

    def decode(self, out: Tensor) -> Tensor:
        """Decode the whole matrix into `out`, (m, n) float32; returns it."""
        if self.compressed.code.children:
            return decode(self.compressed, self.plugins, out)
        with isolated(self.who):
            matrix = self.method.decode(self.compressed.code, self.current_floats(), out)
        return matrix if matrix is out else out.copy_(matrix)

    def decode_rows(self, start: int, stop: int, out: Tensor) -> Tensor:
        """Decode some rows of a code whose `row_step` is not 0.

        Args:
            start: the first row, a multiple of `row_step`.
            stop: the row behind the last one, a multiple of `row_step` or m.
            out: float32 (stop - start, n) memory to decode into.

        Returns:
            `out`.
        """
        with isolated(self.who):
            part = self.method.rows(self.compressed.code, start, stop)
            matrix = self.method.decode(part, part.floats(), out)
        return matrix if matrix is out else out.copy_(matrix)

    def current_floats(self) -> Mapping[str, Tensor]:
        """The code's floats as float32, by name, with the values that they have now."""
        return self.compressed.code.floats() if self.floats is None else self.floats


def prepare(
    compressed: MethodCode, plugins: Plugins, params: Mapping[str, Tensor] | None = None
) -> Prepared:
    """Prepare a code for products.

    Args:
        compressed: the code.
        plugins: the installed methods.
        params: replacements for any of the tensors of `trainable`, float32, by name. Their memory
            is shared: later products see what is written there.
    """
    entry = plugins.method(compressed.method)
    method, who = entry.item, named(entry)
    code = with_floats(compressed, params or {}).code
    with isolated(who):
        step = 0 if code.children else method.row_step(code)
    floats = [part for part in code.parts.values() if isinstance(part, Floats)]
    at_hand = all(part.stored.dtype == torch.float32 and not part.exponent for part in floats)
    has_integers = any(isinstance(part, Indices) for part in code.parts.values())
    return Prepared(
        MethodCode(compressed.method, code),
        plugins,
        method,
        who,
        step,
        method.multiplies and has_integers and not code.children,
        method.multiplies_by_columns and not code.children,
        code.floats() if at_hand else None,
        KeptMatrix(),
    )
