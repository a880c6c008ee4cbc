"""Readers of entropy-coded streams in plain Python, written from docs/packings.md alone."""

from bisect import bisect_right
from collections.abc import Callable, Iterator


class Bits:
    """A reader of the bits of bytes, the least significant of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> int:
        value = 0
        for place in range(count):
            value |= (self.data[self.at // 8] >> self.at % 8 & 1) << place
            self.at += 1
        return value

    def gamma(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return 1 << zeros | self.take(zeros)


def table(data: bytes, order: int) -> tuple[dict[int, int], int]:
    """Symbol -> number, and the bytes that the table takes."""
    bits = Bits(data)
    numbers, symbol = {}, -1
    for _ in range(bits.gamma()):
        symbol += bits.gamma()
        high = bits.gamma() - 1
        numbers[symbol] = high << order | bits.take(order)
    return numbers, (bits.at + 7) // 8


def chunks(data: bytes, count: int, c: int) -> Iterator[tuple[bytes, int]]:
    """Yield each chunk with the number of its codes."""
    number = -(-count // (1 << c))
    sizes = [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(number - 1)]
    start = 4 * (number - 1)
    for i in range(number):
        end = start + sizes[i] if i < number - 1 else len(data)
        yield data[start:end], min(1 << c, count - (i << c))
        start = end


def huffman_table(stream: bytes) -> tuple[dict[int, int], int]:
    """Symbol -> length, and the position where the chunks begin."""
    numbers, size = table(stream[2:], stream[1])
    lengths, length = {}, 0
    for symbol, number in numbers.items():
        length += -(number + 1) // 2 if number % 2 else number // 2
        lengths[symbol] = length
    return lengths, 2 + size


def read_huffman(stream: bytes, count: int) -> list[int]:
    if count == 0:
        return []
    lengths, start = huffman_table(stream)
    if len(lengths) == 1:
        return list(lengths) * count
    words, word, before = {}, -1, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        word = (word + 1) << (length - before) if before else 0
        before = length
        words[f"{word:0{length}b}"] = symbol
    codes = []
    for data, size in chunks(stream[start:], count, stream[0]):
        bits = iter("".join(f"{byte:08b}" for byte in data))
        for _ in range(size):
            text = ""
            while text not in words:
                text += next(bits)
            codes.append(words[text])
    return codes


def ans_table(stream: bytes) -> tuple[dict[int, int], int]:
    """Symbol -> frequency, and the position where the chunks begin."""
    numbers, size = table(stream[4:], stream[3])
    return {symbol: number + 1 for symbol, number in numbers.items()}, 4 + size


def read_ans(stream: bytes, count: int) -> list[int]:
    if count == 0:
        return []
    scale, lanes, c = stream[:3]
    freqs, start = ans_table(stream)
    assert sum(freqs.values()) == 1 << scale
    if len(freqs) == 1:
        return list(freqs) * count
    slots = [(s, f, b) for s, f, b in _running(freqs) for _ in range(f)]
    codes = []
    for data, size in chunks(stream[start:], count, c):
        words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        states = [words[2 * i] | words[2 * i + 1] << 32 for i in range(lanes)]
        at = 2 * lanes
        for i in range(size):
            x = states[i % lanes]
            slot = x % (1 << scale)
            symbol, f, b = slots[slot]
            codes.append(symbol)
            x = f * (x >> scale) + slot - b
            if x < 1 << 32:
                x = x << 32 | words[at]
                at += 1
            states[i % lanes] = x
        assert states == [1 << 32] * lanes
        assert at == len(words)
    return codes


def _running(freqs: dict[int, int]) -> Iterator[tuple[int, int, int]]:
    start = 0
    for symbol, frequency in freqs.items():
        yield symbol, frequency, start
        start += frequency


_ROOTS = [1073741824, 902905651, 759250125, 638450708]
_MACHINE = [(0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6)]


def read_context(stream: bytes, m: int, n: int) -> list[list[int]]:
    if m * n == 0:
        return [[] for _ in range(m)]
    bits = Bits(stream)
    low, symbols = bits.gamma() - 1, bits.gamma()
    if symbols == 1:
        return [[low] * n for _ in range(m)]
    lanes, walks, parity = (4 if bits.take(1) else 1), bits.take(1), bits.take(1)
    row_number, rows = _classes(bits, m)
    column_number, columns = _classes(bits, n)
    mode = bits.gamma() - 1
    overall = _prices(bits, mode, symbols, symbols, [0] * symbols)
    tables = {}
    for r in range(row_number):
        for c in range(column_number):
            for odd in range(1 + walks):
                count = bits.gamma() - 1
                prices = _prices(bits, mode, symbols, count, overall)
                running = list(_running(_frequencies(prices)))
                tables[r, c, odd] = running, [b for _, _, b in running]
    start = (bits.at + 7) // 8
    chunk = 128 * -(-(1 << 18) // (128 * n))
    number = -(-m // chunk)
    sizes = [int.from_bytes(stream[start + 4 * i :][:4], "little") for i in range(number - 1)]
    start += 4 * (number - 1)
    matrix: list[list[int]] = []
    for i in range(number):
        end = start + sizes[i] if i < number - 1 else len(stream)
        data, start = stream[start:end], end
        words = [int.from_bytes(data[j : j + 4], "little") for j in range(0, len(data), 4)]
        states = [words[2 * j] | words[2 * j + 1] << 32 for j in range(lanes)]
        at = 2 * lanes
        for row in rows[i * chunk : (i + 1) * chunk]:
            if len(matrix) % 128 == 0:
                walk = [0] * n
            codes = []
            for j, column in enumerate(columns):
                x = states[j % lanes]
                running, starts = tables[row, column, walk[j] % 2 if walks else 0]
                symbol, f, b = running[bisect_right(starts, x % 65536) - 1]
                codes.append(low + symbol)
                x = f * (x >> 16) + x % 65536 - b
                if x < 1 << 32:
                    x = x << 32 | words[at]
                    at += 1
                states[j % lanes] = x
                walk[j] = _MACHINE[walk[j]][(symbol + parity) % 2]
            matrix.append(codes)
        assert states == [1 << 32] * lanes
        assert at == len(words)
    return matrix


def _classes(bits: Bits, members: int) -> tuple[int, list[int]]:
    number = bits.gamma()
    if number == 1:
        return 1, [0] * members
    classes: list[int] = []
    while len(classes) < members:
        size = min(8, members - len(classes))
        value = bits.take((number**size - 1).bit_length())
        classes += [value // number**place % number for place in range(size)]
    return number, classes


def _prices(bits: Bits, mode: int, symbols: int, count: int, overall: list[int]) -> list[int]:
    around = [mode + sign * d for d in range(1, symbols) for sign in (1, -1)]
    prices: dict[int, int] = {}
    excess: dict[int, int] = {}
    for place, s in enumerate([mode] + [s for s in around if 0 <= s < symbols]):
        inward = -1 if s > mode else 1
        predicted = overall[s]
        if s != mode:
            inner, mirrored = s + inward, 2 * mode - s
            predicted += excess[inner]
            if s < mode and mirrored < symbols:
                predicted += excess[mirrored] - excess[mirrored - 1]
            elif inner != mode:
                predicted += excess[inner] - excess[inner + inward]
        number = bits.gamma() if place < count else 1
        difference = number // 2 if number % 2 == 0 else -(number // 2)
        prices[s] = max(0, min(predicted, 64)) + difference
        assert 0 <= prices[s] <= 64
        excess[s] = prices[s] - overall[s]
    return [prices[s] for s in range(symbols)]


def _frequencies(prices: list[int]) -> dict[int, int]:
    weights = [_ROOTS[price % 4] >> price // 4 for price in prices]
    share, total = (1 << 16) - len(prices), sum(weights)
    freqs = {s: 1 + weight * share // total for s, weight in enumerate(weights)}
    freqs[prices.index(min(prices))] += (1 << 16) - sum(freqs.values())
    return freqs


READERS: dict[str, Callable[[bytes, int], list[int]]] = {"huffman": read_huffman, "ans": read_ans}
