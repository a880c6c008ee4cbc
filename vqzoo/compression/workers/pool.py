"""Compress layers through an executor."""

import pickle
import shutil
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vqzoo.calls.schedule import Call, run_calls
from vqzoo.compression.plugin_calls import Statistics
from vqzoo.compression.selection import LayerPlan
from vqzoo.compression.view import layer_weight
from vqzoo.compression.work import NOT_REACHED, Kept, LayerWork
from vqzoo.compression.workers.call import LayerAnswer, LayerCall, compress_called
from vqzoo.compression.workers.layer_file import layer_tensors, write_layer
from vqzoo.errors import PluginError, VqzooError, one_line
from vqzoo.plugin.method import SkipLayer
from vqzoo.progress import Progress

IN_FLIGHT_BYTES = 2**30  # of files for calls that run or wait


@dataclass(frozen=True)
class LayerWorkers:
    """Where layers are compressed, other than in this process.

    Attributes:
        executor: runs calls, on the CPU.
        folder: for the weights and statistics of layers whose calls run or wait, each a file; all
            workers must see it. It is emptied before, and deleted behind.
        resumes: whether what was done is kept for the same command to go on with.
    """

    executor: Executor
    folder: Path
    resumes: bool = True


def compress_by_workers(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    work: LayerWork[Kept],
    finished: Mapping[int, Kept],
    statistics: Mapping[str, Statistics] | None,
    workers: LayerWorkers,
    progress: Progress,
) -> Generator[tuple[int, Kept | SkipLayer | PluginError], None, None]:
    """Compress layers side by side, the largest first, and yield what becomes of each as it ends.

    Calls hold no weights. A layer's file is written when its turn comes, and deleted when its call
    has ended; all files together take at most 1 GiB and one layer.

    Args:
        model: holds the weights.
        plans: the layers and the choices made for them.
        work: what to do with each; it pickles.
        finished: what is kept of some already, by place in `plans`.
        statistics: of the dense network, by layer; None without calibration.
        workers: where the work is done.
        progress: told of layers that begin or are under way, and of notes.

    Yields:
        The place in `plans`, and what is kept of the layer or why there is nothing to keep.

    Raises:
        UsageError: a method does not take its options.
        VqzooError: a worker died or does not see the folder, or the disk is full.
    """
    places = {plan.layer.name: index for index, plan in enumerate(plans)}
    for done, (index, kept) in enumerate(sorted(finished.items())):
        progress.layer_started(plans[index].layer.name, done, len(plans))
        yield index, kept
    waiting = [plan for index, plan in enumerate(plans) if index not in finished]
    waiting.sort(key=lambda plan: -plan.layer.numel)
    under_way: dict[str, LayerPlan] = {}
    done = len(finished)

    def calls() -> Iterator[Call]:
        for plan in waiting:
            name = plan.layer.name
            if not under_way:
                progress.layer_started(name, done, len(plans))
            known = None if statistics is None else statistics.get(name)
            if statistics is not None and known is None:
                progress.note(name, NOT_REACHED)
            under_way[name] = plan
            path = workers.folder.resolve() / f"{places[name]:05d}.safetensors"
            yield _call(path, plan, work, layer_weight(model, name), known)

    shutil.rmtree(workers.folder, ignore_errors=True)
    workers.folder.mkdir(parents=True)
    try:
        with closing(run_calls(calls(), workers.executor, IN_FLIGHT_BYTES)) as ended:
            for call, future in ended:
                call.argument.path.unlink()
                plan = under_way.pop(call.key)
                outcome = _outcome(plan, future, progress, resumes=workers.resumes)
                done += 1
                if under_way:
                    progress.layer_started(next(iter(under_way)), done, len(plans))
                yield places[call.key], outcome
    finally:
        shutil.rmtree(workers.folder, ignore_errors=True)


def _call(
    path: Path,
    plan: LayerPlan,
    work: LayerWork[Kept],
    weight: Tensor,
    statistics: Statistics | None,
) -> Call:
    """Write a layer's file, and make its call."""
    tensors = layer_tensors(weight, statistics)
    write_layer(path, tensors)
    argument = LayerCall(plan, pickle.dumps(work), path, calibrated=statistics is not None)
    size = sum(tensor.nbytes for tensor in tensors.values())
    return Call(plan.layer.name, compress_called, argument, size=size)


def _outcome(
    plan: LayerPlan, future: "Future[LayerAnswer[Kept]]", progress: Progress, *, resumes: bool
) -> Kept | SkipLayer | PluginError:
    """What became of a layer; what was said of it is said again.

    Raises:
        VqzooError: its worker died.
    """
    name = plan.layer.name
    try:
        answer = future.result()
    except BrokenExecutor as error:
        advice = "; run the same command again to resume" if resumes else ""
        raise VqzooError(f"layer {name} is not compressed: {one_line(error)}{advice}") from error
    for text in answer.notes:
        progress.note(name, text)
    for warning in answer.warned:
        warnings.warn(warning, stacklevel=2)
    return answer.outcome
