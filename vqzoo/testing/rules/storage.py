"""Rules for storage: sizes are counted to the byte, and a stored code is read back unchanged."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from vqzoo.artifact.codes import build_code
from vqzoo.artifact.encode import EncodedLayer, encode_layer
from vqzoo.artifact.layouts.tensors import open_tensors
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


def stored_bits_are_exact(subject: QuantizerSubject) -> None:
    """`stored_bits` of a quantizer that offers `candidates` counts exactly what is stored, each
    part padded to whole bytes: `--ratio` chooses by it."""
    for case in (*SHAPES, REFERENCE):
        m, n = case.matrix_shape
        if not any(True for _ in subject.quantizer.candidates(m, n)):
            continue
        for text, options in subject.variants(case):
            result = subject.compress(gaussian(case), options, case)
            if result is None:
                continue
            counted = subject.quantizer.stored_bits(m, n, options)
            actual = stored_bits(result[0].code)
            require(
                counted == actual,
                f"{case.name}, {text}: stored_bits is {counted}, but {actual} bits are stored",
            )


def layout_matches_the_code(subject: QuantizerSubject) -> None:
    """`layout`, if a quantizer has one, gives the names, shapes, dtypes, cardinalities and facts of
    the code that `quantize` returns, with tensors on the meta device: sizes are computed from it
    before there are weights."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            result = subject.compress(gaussian(case), options, case)
            if result is None:
                continue
            try:
                layout = subject.quantizer.layout(*case.matrix_shape, options)
            except NotImplementedError:
                continue
            expected, actual = _outline(layout), _outline(result[0].code)
            require(
                expected == actual,
                f"{case.name}, {text}: layout gives {expected}, but quantize {actual}",
            )
            require(
                all(_tensor(part).is_meta for part in layout.parts.values()),
                f"{case.name}, {text}: tensors of the layout are not on the meta device",
            )


def _outline(code: Code) -> str:
    """Everything about a Code except values."""
    parts = {}
    for name, part in sorted(code.parts.items()):
        kind = str(part.cardinality) if isinstance(part, Indices) else part.dtype
        parts[name] = (kind, *_tensor(part).shape)
    children = {name: _outline(child.code) for name, child in sorted(code.children.items())}
    return f"{code.shape} {parts} {dict(sorted(code.facts.items()))} {children}"


def _tensor(part: Part) -> Tensor:
    return part.values if isinstance(part, Indices) else part.stored


def the_requested_ratio_is_reached(subject: QuantizerSubject) -> None:
    """`options_for` returns options that `fit` leaves as they are, and whose stored size reaches
    the requested ratio, or comes closest to it if no candidate does. It returns None for a
    quantizer without candidates."""
    for case in (REFERENCE, ODD):
        fitted = {
            subject.quantizer.fit(*case.matrix_shape, candidate, _ignore_note): None
            for candidate in subject.quantizer.candidates(*case.matrix_shape)
        }
        for ratio in _RATIOS:
            options = subject.quantizer.options_for(*case.matrix_shape, ratio, {})
            what = f"{case.name}, ratio {ratio:g}"
            require((options is None) == (not fitted), f"{what}: options_for returned {options!r}")
            if options is not None:
                _check_chosen(subject, options, list(fitted), case, ratio)


def _check_chosen(
    subject: QuantizerSubject, options: Any, candidates: list[Any], case: Case, ratio: float
) -> None:
    (m, n), what = case.matrix_shape, f"{case.name}, ratio {ratio:g}: {options!r}"
    fitted = subject.quantizer.fit(m, n, options, _ignore_note)
    require(fitted == options, f"{what} does not fit: fit returns {fitted!r}")
    error = subject.quantizer.expected_error(m, n, options)
    require(error >= 0, f"{what} has expected_error {error}")
    bits, dense_bits = stored_bits(subject.quantize(gaussian(case), options, case).code), 32 * m * n
    fewest = min(subject.quantizer.stored_bits(m, n, candidate) for candidate in candidates)
    reachable = fewest * ratio <= dense_bits
    reached = bits * ratio <= dense_bits if reachable else bits == fewest
    require(reached, f"{what} stores {bits} of {dense_bits} bits")


def _ignore_note(text: str) -> None:
    """Notes about candidates that are not chosen are of no interest."""


def stored_bytes_match_the_counted_bits(subject: Subject) -> None:
    """With fixed-width packing, the bytes that an artifact uses for a layer are the bits that the
    core counts from its code."""
    for text, options in subject.variants(REFERENCE):
        compressed = subject.quantize(gaussian(REFERENCE), options)
        encoded = _encode(subject, compressed, options, REFERENCE)
        bits = stored_bits(compressed.code)
        require(
            8 * encoded.nbytes == bits,
            f"{text}: {encoded.nbytes} bytes are stored, but {bits} bits were counted",
        )


def an_artifact_preserves_the_code(subject: Subject) -> None:
    """A code that is saved and loaded again is the same bit for bit, passes the method's `check`,
    and decodes to the same matrix. Loaded codes have the narrowest integer dtype (uint8 up to 256
    symbols, where 0 - 1 is 255): convert them before computing with them."""
    for case in (*SHAPES, REFERENCE):
        for text, options in subject.variants(case):
            result = subject.compress(gaussian(case), options, case)
            if result is not None:
                compressed, decoded = result
                loaded = _save_and_load(subject, compressed, options, case)
                what = f"{case.name}, {text}"
                require(same_code(loaded, compressed), f"{what}: the loaded code differs")
                require(
                    torch.equal(decode(loaded, subject.plugins), decoded),
                    f"{what}: the loaded code decodes to another matrix",
                )


def _encode(subject: Subject, compressed: MethodCode, options: Any, case: Case) -> EncodedLayer:
    shape, dtype = case.matrix_shape, torch.float32
    return encode_layer(
        _KEY, shape, dtype, compressed, options.model_dump(), "bits", subject.plugins
    )


def _save_and_load(
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
        with open_tensors(artifact) as file:
            tensors = file.tensors(part_keys(_KEY, entry))
        return build_code(_KEY, entry, tensors, subject.plugins)
