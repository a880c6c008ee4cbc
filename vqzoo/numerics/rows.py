"""Work on the rows of a large matrix with torch's operators, some rows at a time on each thread."""

from collections.abc import Callable
from queue import SimpleQueue

import torch
from torch import Tensor

from vqzoo.numerics.threads import one_torch_thread, run_tasks, thread_count

_VALUES = 1 << 18  # of a chunk


def for_rows(
    matrix: Tensor,
    work: Callable[[slice, Tensor], None],
    *,
    buffers: int = 1,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Call `work`, without gradients, for chunks of rows until all rows are done.

    What torch computes of one row does not depend on the rows beside it, so the results are the
    same with any number of threads.

    Args:
        matrix: (m, n).
        work: takes a slice of rows, and (buffers, rows, n) of memory to compute in.
        buffers: chunks of memory that `work` needs, perhaps none.
        dtype: of that memory.
    """
    m, n = matrix.shape
    height = max(1, min(m, _VALUES // max(1, n)))
    chunks = [slice(start, min(start + height, m)) for start in range(0, m, height)]
    on_cpu = matrix.device.type == "cpu"
    pool: SimpleQueue[Tensor] = SimpleQueue()
    for _ in range(min(thread_count(), len(chunks)) if on_cpu else 1):
        pool.put(matrix.new_empty(buffers, height, n, dtype=dtype))

    def task(rows: slice) -> None:
        buffer = pool.get()
        try:
            with torch.no_grad():  # each thread has a mode of its own
                work(rows, buffer[:, : rows.stop - rows.start])
        finally:
            pool.put(buffer)

    if not on_cpu:
        for rows in chunks:
            task(rows)
        return
    with one_torch_thread():
        run_tasks(task, chunks)
