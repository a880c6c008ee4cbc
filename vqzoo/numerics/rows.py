"""Work on the rows of a large matrix by torch's operators, some rows at a time on each thread.

torch's own threads wait for one another after every operator, and spin while they wait; chunks that
stay in the cache take so little time that on a busy machine most of it is waiting.
"""

from collections.abc import Callable
from queue import SimpleQueue

import torch
from torch import Tensor

from vqzoo.numerics.threads import run_tasks, thread_count

_VALUES = 1 << 18  # of a chunk


def for_rows(
    matrix: Tensor,
    work: Callable[[slice, Tensor], None],
    *,
    buffers: int = 1,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Call `work` for chunks of rows until all rows are done.

    What torch computes of a row does not depend on the rows beside it, so the results are the same
    with any number of threads.

    Args:
        matrix: (m, n).
        work: takes a slice of rows, and (buffers, rows, n) of memory to compute in.
        buffers: chunks of memory that `work` needs.
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
            work(rows, buffer[:, : rows.stop - rows.start])
        finally:
            pool.put(buffer)

    if not on_cpu:
        for rows in chunks:
            task(rows)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_tasks(task, chunks)
    finally:
        torch.set_num_threads(threads)
