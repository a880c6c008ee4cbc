"""What can go wrong on the way to a Hub, on demand."""

import re
import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["cut", "error", "slow", "garble"]


@dataclass
class Fault:
    """One fault, for the requests that it matches.

    Attributes:
        kind: "cut" drops the connection, while the body comes in (PUT, POST) or goes out (GET);
            "error" answers with `status`; "slow" spreads the body over `seconds`; "garble" changes
            the body's bytes, not their number.
        method: GET, HEAD, PUT or POST.
        path: a regular expression, searched for in the request's path.
        after: for "cut", body bytes that still pass; for "garble", how many stay as they are.
        times: how many requests it hits before it is over.
        status: for "error".
        seconds: for "slow".
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
    """The faults that a Hub will show."""

    pending: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        """Show a fault to the next requests that it matches."""
        with self._lock:
            self.pending.append(fault)

    def clear(self) -> None:
        """Work again."""
        with self._lock:
            self.pending.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that this request is to meet, if any."""
        with self._lock:
            for fault in self.pending:
                if fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    if fault.times == 0:
                        self.pending.remove(fault)
                    return fault
        return None


def garbled(data: bytes, after: int) -> bytes:
    """`data` with every bit flipped behind the first `after` bytes."""
    return data[:after] + bytes(255 - byte for byte in data[after:])
