"""What the numerics are to reach, and what they did."""

from collections.abc import Iterable
from dataclasses import dataclass

from products_from_codes import codes
from report import Result
from weights import SHAPES

LAYER = "alexnet.fc6"
METHODS = ("km", "pq", "rq", "binary", "rtn", "svd")
_COMPILER = 256 << 20  # bytes that compiled kernels and libraries may take, besides 1.5 weights


@dataclass(frozen=True)
class Bar:
    """One thing to reach; `measured` is None where its benchmark was not run."""

    text: str
    measured: float | None
    wanted: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        if self.measured is None:
            return False
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted

    def __str__(self) -> str:
        if self.measured is None:
            return f"not run   {self.text}"
        sign = "at most" if self.at_most else "at least"
        state = "met    " if self.met else "NOT MET"
        return f"{state}   {self.text}: {self.measured:.4g} ({sign} {self.wanted:.4g})"


class Measured:
    """Results by layer, task and library."""

    def __init__(self, results: Iterable[Result], sgemm: float) -> None:
        self._results = {(r.layer, r.task, r.library): r for r in results}
        self.sgemm = sgemm

    def ratio(self, what: str, over: tuple[str, str], under: tuple[str, str]) -> float | None:
        """`what` of one (task, library) over that of another."""
        a, b = self._on_layer(over), self._on_layer(under)
        if a is None or b is None:
            return None
        return float(getattr(a, what) / getattr(b, what))

    def value(self, what: str, of: tuple[str, str]) -> float | None:
        """`what` of one (task, library)."""
        found = self._on_layer(of)
        return None if found is None else getattr(found, what)

    def _on_layer(self, key: tuple[str, str]) -> Result | None:
        return self._results.get((LAYER, *key))


def bars(measured: Measured) -> list[Bar]:
    """All of them, on AlexNet's fc6."""
    return [
        *_scalar(measured),
        *_pq(measured),
        *_against_faiss(measured),
        *_decoding(measured),
        *_products(measured),
        *_memory(measured),
        *_loop(measured),
        *_runs(measured),
    ]


def _scalar(m: Measured) -> list[Bar]:
    found = []
    for k in (16, 256):
        task, exact = f"scalar k={k}", f"scalar exact k={k}"
        ours = (task, "vqzoo")
        for peer, times in (("faiss", 20.0), ("coremltools", 60.0)):
            ratio = m.ratio("seconds", (task, peer), ours)
            found.append(Bar(f"{task}: times faster than {peer}", ratio, times))
        error = m.ratio("error", ours, (exact, "vqzoo"))
        found.append(Bar(f"{task}: error over the optimum", error, 1.005, at_most=True))
        ratio = m.ratio("seconds", (task, "faiss"), (exact, "vqzoo"))
        found.append(Bar(f"{exact}: times faster than faiss", ratio, 4.0))
    return found


def _pq(m: Measured) -> list[Bar]:
    task, found = "pq d=4 k=256", []
    for peer, times in (("scikit-learn", 5.0), ("faiss", 14.0)):
        ratio = m.ratio("seconds", (task, peer), (task, "vqzoo"))
        found.append(Bar(f"{task}: times faster than {peer}", ratio, times))
        error = m.ratio("error", (task, "vqzoo"), (task, peer))
        found.append(Bar(f"{task}: error over that of {peer}", error, 1.01, at_most=True))
    rows, columns = SHAPES[LAYER]
    seconds = m.value("seconds", ("pq d=4 k=256, 25 sweeps", "vqzoo"))
    share = None
    if seconds is not None:
        share = 2.0 * rows * columns * 256 * 25 / seconds / 1e9 / m.sgemm
    found.append(Bar(f"{task}: share of sgemm's rate, 25 sweeps over all points", share, 0.4))
    return found


def _against_faiss(m: Measured) -> list[Bar]:
    found = []
    tasks = [(f"shared d=8 k={k}", "faiss", 1.0) for k in (256, 1024)]
    tasks += [(f"rq d=8 k=256 t={t}", "faiss beam 5", 5.0) for t in (2, 3)]
    for task, peer, times in tasks:
        ratio = m.ratio("seconds", (task, peer), (task, "vqzoo"))
        error = m.ratio("error", (task, "vqzoo"), (task, peer))
        found.append(Bar(f"{task}: times faster than {peer}", ratio, times))
        found.append(Bar(f"{task}: error over that of {peer}", error, 1.0, at_most=True))
    return found


def _decoding(m: Measured) -> list[Bar]:
    shares = {
        "pq d=4 k=256": 1.0,
        "shared d=8 k=256": 1.0,
        "rq d=8 k=256 t=2": 0.5,
        "scalar k=16": 0.5,
        "scalar k=256": 0.5,
    }
    return [
        Bar(
            f"decode {name}: share of memcpy's rate",
            m.ratio("seconds", ("decode memcpy", "memcpy"), (f"decode {name}", "vqzoo")),
            share,
        )
        for name, share in shares.items()
    ]


def _products(m: Measured) -> list[Bar]:
    wanted = {("float32", 1): 3.0, ("bfloat16", 1): 2.0, ("float32", 8): 1.0}
    return [
        Bar(
            f"product {task}, batch {batch}: times faster than {peer}",
            m.ratio(
                "seconds",
                (f"product dense, batch {batch}", peer),
                (f"product {task}, batch {batch}", "vqzoo"),
            ),
            times,
        )
        for task, _ in codes(1, 8)
        for (peer, batch), times in wanted.items()
    ]


def _memory(m: Measured) -> list[Bar]:
    rows, columns = SHAPES[LAYER]
    limit = 1.5 + _COMPILER / (4 * rows * columns)
    return [
        Bar(
            f"compress {method}: peak memory over the weight's, above it",
            m.value("peak", (f"compress {method}", "vqzoo")),
            limit,
            at_most=True,
        )
        for method in METHODS
    ]


def _loop(m: Measured) -> list[Bar]:
    seconds = m.value("seconds", ("km k=16, compress", "vqzoo"))
    return [Bar("vqzoo.compress, km k=16: seconds", seconds, 0.3, at_most=True)]


def _runs(m: Measured) -> list[Bar]:
    return [
        Bar(
            f"vqzoo run {model} --layers {layers} -m pq: seconds of compression",
            m.value("seconds", (f"run {model}", "vqzoo")),
            seconds,
            at_most=True,
        )
        for model, layers, seconds in (("alexnet", "dense", 15.0), ("vgg16", "all", 40.0))
    ]
