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
    if stream[0] == 1:
        flat = read_ans(stream[1:], m * n)
        return [flat[i * n : (i + 1) * n] for i in range(m)]
    bits = Bits(stream)
    assert not bits.take(1)
    low, size = bits.gamma() - 1, bits.gamma()
    if size == 1:
        return [[low] * n for _ in range(m)]
    lanes, walks, parity = (8 if bits.take(1) else 1), bits.take(1), bits.take(1)
    bucketed, scale = bits.take(1), 8 + bits.take(3)
    symbols = [(code, 0, 0) for code in range(size)]
    if bucketed:
        symbols = _buckets(bits.gamma() - 1, size)
    segments = bits.gamma()
    row_number, rows = _classes(bits, m)
    column_number, columns = _classes(bits, n)
    number, cells = _classes(bits, row_number * column_number * (1 + walks))
    mode = bits.gamma() - 1
    limit = 4 * scale + 2
    overall = _prices(bits, mode, limit, len(symbols), [0] * len(symbols))
    tables = []
    for _ in range(number):
        prices = _prices(bits, mode, limit, bits.gamma() - 1, overall)
        running = [
            entry for entry in _running(_scaled_frequencies(prices, limit, scale)) if entry[1]
        ]
        tables.append((running, [b for _, _, b in running]))
    start = (bits.at + 7) // 8
    chunk = 128 * segments
    chunk_number = -(-m // chunk)
    sizes = [int.from_bytes(stream[start + 4 * i :][:4], "little") for i in range(chunk_number - 1)]
    start += 4 * (chunk_number - 1)
    matrix: list[list[int]] = []
    for i in range(chunk_number):
        end = start + sizes[i] if i < chunk_number - 1 else len(stream)
        data, start = stream[start:end], end
        words = [int.from_bytes(data[j : j + 4], "little") for j in range(0, len(data), 4)]
        states = [words[2 * j] | words[2 * j + 1] << 32 for j in range(lanes)]
        at = 2 * lanes
        drawn: list[list[int]] = []
        for row in rows[i * chunk : (i + 1) * chunk]:
            if len(drawn) % 128 == 0:
                walk = [0] * n
            line = []
            for j, column in enumerate(columns):
                lane = j // 2 % lanes
                cell = (row * column_number + column) * (1 + walks) + walks * (walk[j] % 2)
                running, starts = tables[cells[cell]]
                x = states[lane]
                symbol, f, b = running[bisect_right(starts, x % (1 << scale)) - 1]
                x = f * (x >> scale) + x % (1 << scale) - b
                if (j % 2 or j == n - 1) and x < 1 << 32:
                    x = x << 32 | words[at]
                    at += 1
                states[lane] = x
                line.append(symbol)
                walk[j] = _MACHINE[walk[j]][(symbol + parity) % 2]
            drawn.append(line)
        assert states == [1 << 32] * lanes
        rest = Bits(data[4 * at :])
        for line in drawn:
            matrix.append([])
            for symbol in line:
                base, step, width = symbols[symbol]
                matrix[-1].append(low + base + step * rest.take(width))
        assert (rest.at + 31) // 32 == len(words) - at
        assert not any(rest.take(1) for _ in range(-rest.at % 32))
    return matrix


def _bucket(magnitude: int) -> int:
    if magnitude < 16:
        return magnitude
    e = magnitude.bit_length() - 1
    return 16 + 8 * (e - 4) + 2 * (magnitude // 2 ** (e - 2) % 4) + magnitude % 2


def _buckets(center: int, size: int) -> list[tuple[int, int, int]]:
    """(first code, step, bits of the rest) of each symbol."""
    meanings = []
    for sign, furthest in ((-1, center), (1, size - 1 - center)):
        last = _bucket(furthest) | (furthest >= 16)
        side = []
        for t in range(1, last + 1):
            magnitude, width = t, 0
            if t >= 16:
                octave, place = divmod(t - 16, 8)
                magnitude = 2 ** (octave + 4) + place // 2 * 2 ** (octave + 2) + place % 2
                width = octave + 1
            side.append((center + sign * magnitude, 2 * sign, width))
        meanings += [*side[::-1], (center, 0, 0)] if sign < 0 else side
    return meanings


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


def _prices(bits: Bits, mode: int, limit: int, count: int, overall: list[int]) -> list[int]:
    symbols = len(overall)
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
        prices[s] = max(0, min(predicted, limit)) + difference
        assert 0 <= prices[s] <= limit
        excess[s] = prices[s] - overall[s]
    return [prices[s] for s in range(symbols)]


def _scaled_frequencies(prices: list[int], limit: int, scale: int) -> dict[int, int]:
    weights = [_ROOTS[p % 4] >> p // 4 if p < limit else 0 for p in prices]
    total = sum(weights)
    freqs = {
        s: max(1, weight * 2**scale // total) if prices[s] < limit else 0
        for s, weight in enumerate(weights)
    }
    while sum(freqs.values()) > 2**scale:
        freqs[max(freqs, key=lambda s: freqs[s])] -= 1
    freqs[max(freqs, key=lambda s: freqs[s])] += 2**scale - sum(freqs.values())
    return freqs


READERS: dict[str, Callable[[bytes, int], list[int]]] = {"huffman": read_huffman, "ans": read_ans}
