"""Compressing is a pure function of matrix, options and seed."""

import random

import numpy as np
import torch

from vqzoo.numerics.threads import use_threads
from vqzoo.testing.broken import require
from vqzoo.testing.codes import same_code
from vqzoo.testing.matrices import REFERENCE, gaussian
from vqzoo.testing.subject import Subject


def the_input_is_left_untouched(subject: Subject) -> None:
    """`quantize`, or a transform's `forward`, must not write into the weight that it is given: it
    is the model's own, and the error is measured against it."""
    for text, options in subject.variants(REFERENCE):
        weight = gaussian(REFERENCE)
        before = weight.clone()
        subject.quantize(weight, options)
        require(torch.equal(weight, before), f"{text}: the weight was changed")


def the_same_seed_gives_the_same_code(subject: Subject) -> None:
    """The same matrix, options and `context.seed` give the same code bit for bit, whatever the
    global random state and the number of threads: a second run must write the same bytes."""
    for text, options in subject.variants(REFERENCE):
        first = subject.quantize(gaussian(REFERENCE), options, seed=7)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            with use_threads(1), torch.random.fork_rng(devices=[]):
                torch.manual_seed(99)
                second = subject.quantize(gaussian(REFERENCE), options, seed=7)
        finally:
            torch.set_num_threads(threads)
        require(same_code(first, second), f"{text}: another code came out the second time")


def global_random_state_is_left_alone(subject: Subject) -> None:
    """Draw from a generator seeded by `context.seed`, never from torch's, numpy's or Python's own:
    the user's program has its own use for them."""
    options = subject.finest()
    torch_before, python_before = torch.get_rng_state(), random.getstate()
    numpy_before = _numpy_state()
    subject.quantize(gaussian(REFERENCE), options)
    numpy_after = _numpy_state()
    require(torch.equal(torch_before, torch.get_rng_state()), "torch's generator was drawn from")
    require(python_before == random.getstate(), "Python's generator was drawn from")
    require(numpy_before == numpy_after, "numpy's generator was drawn from")


def _numpy_state() -> str:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - it is that one which must not move
    return repr(state)
