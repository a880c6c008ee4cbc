"""Readers of entropy-coded streams in plain Python, written from docs/packings.md alone."""

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


READERS: dict[str, Callable[[bytes, int], list[int]]] = {"huffman": read_huffman, "ans": read_ans}
