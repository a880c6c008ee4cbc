"""Faults of a Hub and its connections, injected on demand."""

import re
import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["cut", "error", "slow", "garble"]


@dataclass
class Fault:
    """One fault, for the requests that it matches.

    Attributes:
        kind: "cut" drops the connection while the body is received (PUT, POST) or sent (GET);
            "error" responds with `status`; "slow" spreads the body over `seconds`; "garble" changes
            the bytes of the body, but not their number.
        method: GET, HEAD, PUT or POST.
        path: regular expression, searched for in the path of a request.
        after: bytes of the body that pass before the cut, or that "garble" leaves unchanged.
        times: number of requests to hit.
        status: HTTP status, for "error".
        seconds: duration, for "slow".
    """

    kind: Kind
    method: str
    path: str
    after: int = 0
    times: int = 1
    status: int = 500
    seconds: float = 1.0


@dataclass
class Faults:
    """The faults that a Hub injects."""

    pending: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        """Inject a fault into the next requests that it matches."""
        with self._lock:
            self.pending.append(fault)

    def clear(self) -> None:
        """Drop all faults."""
        with self._lock:
            self.pending.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for a request, if any; counts it as one hit."""
        with self._lock:
            for fault in self.pending:
                if fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    if fault.times == 0:
                        self.pending.remove(fault)
                    return fault
        return None


def garbled(data: bytes, after: int) -> bytes:
    """`data` with every bit behind the first `after` bytes flipped."""
    return data[:after] + bytes(255 - byte for byte in data[after:])
