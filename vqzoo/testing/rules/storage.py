"""Sizes are counted to the byte, and what was stored comes back."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from vqzoo.artifact.codes import build_code
from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.artifact.parts import part_keys
from vqzoo.artifact.reader import open_artifact, verify_checksum
from vqzoo.artifact.writer import write_artifact
from vqzoo.compression.decode import decode
from vqzoo.plugin.code import Code, Indices, MethodCode, Part, stored_bits
from vqzoo.testing.broken import require
from vqzoo.testing.codes import same_code
from vqzoo.testing.matrices import ODD, REFERENCE, SHAPES, Case, gaussian
from vqzoo.testing.subject import QuantizerSubject, Subject

_KEY = "weight"
_RATIOS = (1.5, 4.0, 8.0, 16.0, 30.0)


def stored_bits_are_what_is_stored(subject: QuantizerSubject) -> None:
    """A quantizer that offers `candidates` counts their `stored_bits` exactly, every part padded
    to whole bytes: `--ratio` chooses by them."""
    for case in (*SHAPES, REFERENCE):
        m, n = case.matrix_shape
        if not any(True for _ in subject.quantizer.candidates(m, n)):
            continue
        for text, options in subject.variants(case):
            found = subject.compress(gaussian(case), options, case)
            if found is None:
                continue
            counted = subject.quantizer.stored_bits(m, n, options)
            real = stored_bits(found[0].code)
            require(
                counted == real, f"{case.name}, {text}: it counts {counted} bits; {real} are stored"
            )


def layout_is_what_is_stored(subject: QuantizerSubject) -> None:
    """A quantizer that has a `layout` foretells names, shapes, dtypes, cardinalities and facts of
    what it stores, on the meta device: sizes are known before there are weights."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            found = subject.compress(gaussian(case), options, case)
            if found is None:
                continue
            try:
                layout = subject.quantizer.layout(*case.matrix_shape, options)
            except NotImplementedError:
                continue
            foretold, real = _outline(layout), _outline(found[0].code)
            require(
                foretold == real, f"{case.name}, {text}: it foretells {foretold}; {real} is stored"
            )
            require(
                all(_tensor(part).is_meta for part in layout.parts.values()),
                f"{case.name}, {text}: the layout holds values",
            )


def _outline(code: Code) -> str:
    """What a Code consists of, without values."""
    parts = {}
    for name, part in sorted(code.parts.items()):
        kind = str(part.cardinality) if isinstance(part, Indices) else part.dtype
        parts[name] = (kind, *_tensor(part).shape)
    children = {name: _outline(child.code) for name, child in sorted(code.children.items())}
    return f"{code.shape} {parts} {dict(sorted(code.facts.items()))} {children}"


def _tensor(part: Part) -> Tensor:
    return part.values if isinstance(part, Indices) else part.stored


def a_ratio_is_reached(subject: QuantizerSubject) -> None:
    """`options_for` gives options that fit as they are, and whose stored size reaches the ratio
    asked or, where none does, comes closest; a quantizer without candidates gives None."""
    for case in (REFERENCE, ODD):
        fitted = {
            subject.quantizer.fit(*case.matrix_shape, one, _ignored): None
            for one in subject.quantizer.candidates(*case.matrix_shape)
        }
        for ratio in _RATIOS:
            options = subject.quantizer.options_for(*case.matrix_shape, ratio, {})
            what = f"{case.name}, ratio {ratio:g}"
            require((options is None) == (not fitted), f"{what}: options are {options!r}")
            if options is not None:
                _check_chosen(subject, options, list(fitted), case, ratio)


def _check_chosen(
    subject: QuantizerSubject, options: Any, candidates: list[Any], case: Case, ratio: float
) -> None:
    (m, n), what = case.matrix_shape, f"{case.name}, ratio {ratio:g}: {options!r}"
    fitted = subject.quantizer.fit(m, n, options, _ignored)
    require(fitted == options, f"{what} does not fit: {fitted!r} does")
    error = subject.quantizer.expected_error(m, n, options)
    require(error >= 0, f"{what} has expected_error {error}")
    bits = stored_bits(subject.quantize(gaussian(case), options, case).code)
    least = min(subject.quantizer.stored_bits(m, n, one) for one in candidates)
    reached = bits * ratio <= 32 * m * n if least * ratio <= 32 * m * n else bits == least
    require(reached, f"{what} stores {bits} of {32 * m * n} bits")


def _ignored(text: str) -> None:
    """Notes on candidates are nobody's business."""


def the_file_holds_what_the_core_counts(subject: Subject) -> None:
    """The bytes that an artifact gives to a layer are the bits that the core counts from its code,
    with fixed-width packing."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        encoded = _encode(subject, compressed, options, REFERENCE)
        bits = stored_bits(compressed.code)
        require(8 * encoded.nbytes == bits, f"{text}: {encoded.nbytes} bytes are not {bits} bits")


def an_artifact_gives_back_the_code(subject: Subject) -> None:
    """Saved and loaded again, a code is the same bit for bit (packed and unpacked), passes the
    method's own `check`, and decodes to the same matrix. Codes come back in the narrowest integer
    dtype (uint8 up to 256 symbols, where 0 - 1 is 255): convert them before computing with them."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            found = subject.compress(gaussian(case), options, case)
            if found is not None:
                loaded = _saved_and_loaded(subject, found[0], options, case)
                what = f"{case.name}, {text}"
                require(same_code(loaded, found[0]), f"{what}: the loaded code differs")
                again = decode(loaded, subject.plugins)
                require(torch.equal(again, found[1]), f"{what}: it decodes to another matrix")


def _encode(subject: Subject, compressed: MethodCode, options: Any, case: Case) -> EncodedLayer:
    given = options.model_dump()
    shape, dtype = case.matrix_shape, torch.float32
    return encode_layer(_KEY, shape, dtype, compressed, given, "bits", subject.plugins)


def _saved_and_loaded(
    subject: Subject, compressed: MethodCode, options: Any, case: Case
) -> MethodCode:
    encoded = _encode(subject, compressed, options, case)
    m, n = case.matrix_shape
    with TemporaryDirectory() as folder:
        write_artifact(
            Path(folder),
            nn.Linear(n, m, bias=False),
            [encoded],
            {"architecture": "none"},
            method=subject.method.name,
            weights="random",
        )
        artifact = open_artifact(folder)
        verify_checksum(artifact)
        entry = artifact.metadata.layers[_KEY]
        with safe_open(artifact.weights_path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in part_keys(_KEY, entry)}
        return build_code(_KEY, entry, tensors, subject.plugins)
