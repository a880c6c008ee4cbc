"""A plugin that misbehaves in every way that its options name."""

import sys

import torch
from pydantic import Field, field_validator

from vqzoo.plugin import (
    Code,
    Floats,
    Indices,
    LayerSelector,
    Options,
    Packing,
    Quantizer,
    Transform,
    hookimpl,
)

vqzoo_contract = 1


class WildOptions(Options):
    how: str = Field("fine", description="how it misbehaves")
    only: str = Field("", description="the layer that it misbehaves on; all where empty")

    @field_validator("how")
    @classmethod
    def _look(cls, value):
        if value == "options":
            raise RuntimeError("no such mood")
        return value


class Wild(Quantizer):
    name = "wild"
    summary = "misbehaves as asked"
    Options = WildOptions

    def quantize(self, weight, options, context):
        how = options.how if options.only in ("", context.layer) else "fine"
        codes = (weight > 0).long()
        shape = tuple(weight.shape)
        scale = Floats.of(weight.abs().mean().reshape(1))
        parts = {"codes": Indices(codes, 2), "scale": scale}
        if how == "raises":
            raise ZeroDivisionError("division\nby zero")
        if how == "exits":
            sys.exit(0)
        if how == "nothing":
            return None
        if how == "shape":
            return Code((shape[1], shape[0] + 1), parts)
        if how == "nan":
            return Code(shape, {**parts, "scale": Floats(torch.tensor([torch.nan]).half())})
        if how == "range":
            return Code(shape, {**parts, "codes": Indices(codes + 1, 2)})
        if how == "negative":
            return Code(shape, {**parts, "codes": Indices(codes - 1, 2)})
        if how == "float codes":
            return Code(shape, {**parts, "codes": Indices(codes.float(), 2)})
        if how == "cardinality":
            return Code(shape, {**parts, "codes": Indices(codes, 1 << 20)})
        if how == "double":
            return Code(shape, {**parts, "scale": Floats(scale.stored.double())})
        if how == "bare":
            return Code(shape, {**parts, "scale": scale.values})
        if how == "part name":
            return Code(shape, {**parts, "../../etc": scale})
        if how == "parts":
            return Code(shape, [1, 2])
        if how == "fact":
            return Code(shape, parts, {"list": [1]})
        if how == "long fact":
            return Code(shape, parts, {"text": "x" * 5000})
        if how == "child":
            return Code(shape, parts, {}, {"inner": Code(shape, parts)})
        if how == "decode":
            return Code(shape, parts, {"how": "raise"})
        if how == "decoded shape":
            return Code(shape, parts, {"how": "transpose"})
        if how == "decoded nan":
            return Code(shape, parts, {"how": "nan"})
        if how in ("again", "learning", "applied", "trainable"):
            return Code(shape, parts, {"how": how})
        return Code(shape, parts)

    def fit(self, m, n, options, note):
        if options.how == "fit":
            raise KeyError("fit")
        return {"how": "fine"} if options.how == "fitted" else options

    def paper_bits(self, m, n, options):
        return {"paper": -1, "paper text": "many"}.get(options.how)

    def reconstruct(self, code, params):
        matrix = (code.indices("codes").float() * 2 - 1) * params["scale"]
        how = code.facts.get("how")
        if how == "raise":
            raise AttributeError("decode")
        if how == "transpose":
            return torch.cat([matrix, matrix])
        if how == "learning" and torch.is_grad_enabled():
            raise AttributeError("reconstruct")
        if how == "again":
            self.decoded += 1
            if self.decoded > 1:
                raise AttributeError("decode again")
        return matrix * torch.nan if how == "nan" else matrix

    decoded = 0

    def apply(self, code, params, x):
        if code.facts.get("how") == "applied":
            raise AttributeError("apply")
        return super().apply(code, params, x)

    def trainable(self, code):
        if code.facts.get("how") == "trainable":
            sys.exit(3)
        return super().trainable(code)


class Turn(Transform):
    name = "turn"
    summary = "returns nonsense"

    def forward(self, weight, options, context):
        return weight * torch.nan, Code(tuple(weight.shape), {})

    def reconstruct(self, code, params):
        return params["weight"]


class Lossy(Packing):
    name = "lossy"

    def pack(self, values, cardinality):
        return torch.zeros(values.numel(), dtype=torch.uint8)

    def unpack(self, stream, cardinality, count):
        return stream.long()


class Worse(Lossy):
    name = "worse"

    def pack(self, values, cardinality):
        raise OSError("disk on fire")


class Dreamer(LayerSelector):
    name = "dreamer"

    def select(self, layers, text):
        return {"a.layer.of.my.dreams": "it was beautiful"}


class Crash(Dreamer):
    name = "crash"

    def select(self, layers, text):
        return layers["fc"]


@hookimpl
def vqzoo_quantizers():
    return [Wild()]


@hookimpl
def vqzoo_transforms():
    return [Turn()]


@hookimpl
def vqzoo_packings():
    return [Lossy(), Worse()]


@hookimpl
def vqzoo_layer_selectors():
    return [Dreamer(), Crash()]
