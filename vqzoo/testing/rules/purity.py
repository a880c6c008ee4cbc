"""Rules for purity: a code is a function of matrix, options and seed alone."""

import random

import numpy as np
import torch

from vqzoo.numerics.threads import use_threads
from vqzoo.testing.broken import require
from vqzoo.testing.codes import same_code
from vqzoo.testing.matrices import REFERENCE, gaussian
from vqzoo.testing.subject import Subject


def the_input_is_not_modified(subject: Subject) -> None:
    """`quantize`, or a transform's `forward`, does not write to the weight that it is given: the
    weight belongs to the model, and the error is measured against it."""
    for text, options in subject.variants(REFERENCE):
        weight = gaussian(REFERENCE)
        before = weight.clone()
        subject.quantize(weight, options)
        require(torch.equal(weight, before), f"{text}: the method modified the weight")


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
        require(same_code(first, second), f"{text}: the second call gave another code")


def global_random_state_is_not_used(subject: Subject) -> None:
    """A method draws from a generator that it seeds with `context.seed`, never from the global
    generators of torch, numpy or Python, which belong to the user's program."""
    options = subject.finest()
    torch_before, python_before = torch.get_rng_state(), random.getstate()
    numpy_before = _numpy_state()
    subject.quantize(gaussian(REFERENCE), options)
    numpy_after = _numpy_state()
    require(torch.equal(torch_before, torch.get_rng_state()), "it drew from torch's generator")
    require(python_before == random.getstate(), "it drew from Python's generator")
    require(numpy_before == numpy_after, "it drew from numpy's generator")


def _numpy_state() -> str:
    return repr(np.random.get_state(legacy=False))  # noqa: NPY002 - the global state is meant
