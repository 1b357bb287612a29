"""Ways to spoil a file: blindly, byte by byte, and knowing the format, so that the lie lies deep.

All of them are functions of a random generator and of what there is: the same numbers, the same
damage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

Random = np.random.Generator

#: Numbers at which readers of all kinds have stumbled.
EDGES = [
    0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536,
    2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
]  # fmt: skip

#: Messages nested deeper than this are taken as bytes.
DEEPEST = 6


# -- bytes -----------------------------------------------------------------------------------------


def spoil_bytes(random: Random, content: bytes) -> bytes:
    """One blind change: a bit, a byte, a number, a stretch lost, doubled, zeroed, or cut off."""
    if not content:
        return random.bytes(int(random.integers(1, 20)))
    out = bytearray(content)
    at = int(random.integers(len(out)))
    length = int(min(len(out) - at, 2 ** random.integers(0, 12)))
    match int(random.integers(9)):
        case 0:
            out[at] ^= 1 << int(random.integers(8))
        case 1:
            out[at] = int(random.choice([0, 1, 127, 128, 255]))
        case 2:
            number = EDGES[int(random.integers(len(EDGES)))]
            width = int(random.choice([2, 4, 8]))
            out[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        case 3:
            del out[at : at + length]
        case 4:
            out[at:at] = out[at : at + length]
        case 5:
            out[at : at + length] = bytes(length)
        case 6:
            out[at:at] = random.bytes(length)
        case 7:
            del out[at:]
        case _:
            out[at : at + length] = random.bytes(length)
    return bytes(out)


# -- protobuf --------------------------------------------------------------------------------------


@dataclass
class Node:
    """A field of a message. ``value`` is a number, bytes, or the fields of a message.

    ``claim`` is the length it states, if it is to be another than its own.
    """

    number: int
    type: int
    value: int | bytes | list[Node]
    claim: int | None = None


def varint(value: int) -> bytes:
    groups = bytearray()
    value %= 1 << 64
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def serialised(nodes: Sequence[Node]) -> bytes:
    return b"".join(map(_serialised, nodes))


def _serialised(node: Node) -> bytes:
    key = varint(node.number << 3 | node.type)
    if isinstance(node.value, int):
        return key + varint(node.value)
    body = node.value if isinstance(node.value, bytes) else serialised(node.value)
    if node.type != 2:
        return key + body
    return key + varint(len(body) if node.claim is None else node.claim) + body


def parsed(content: bytes, depth: int = 0) -> list[Node] | None:
    """The fields of a message; None where the bytes are none."""
    nodes: list[Node] = []
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, type = key >> 3, key & 7
        if not 0 < number < 1 << 29 or at < 0:
            return None
        if type == 0:
            value, at = _varint(content, at)
            nodes.append(Node(number, type, value))
        elif type in (1, 5):
            width = 8 if type == 1 else 4
            nodes.append(Node(number, type, content[at : at + width]))
            at += width
        elif type == 2:
            length, at = _varint(content, at)
            if at < 0 or at + length > len(content):
                return None
            body = content[at : at + length]
            inner = parsed(body, depth + 1) if body and depth < DEEPEST else None
            nodes.append(Node(number, type, body if inner is None else inner))
            at += length
        else:
            return None
        if at < 0 or at > len(content):
            return None
    return nodes


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; -1 where it does not."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content) or at < 0:
            return 0, -1
        value |= (content[at] & 127) << shift
        at += 1
        if content[at - 1] < 128:
            return value, at
    return 0, -1


def spoil_message(random: Random, content: bytes) -> bytes:
    """One change that keeps all messages around it in order; a blind one where there are none."""
    nodes = parsed(content)
    if not nodes:
        return spoil_bytes(random, content)
    siblings = nodes
    # Down to some depth, each field as likely as the next.
    while True:
        index = int(random.integers(len(siblings)))
        inner = siblings[index].value
        if not isinstance(inner, list) or not inner or random.random() < 0.2:
            break
        siblings = inner
    node = siblings[index]
    match int(random.integers(11)):
        case 0:
            del siblings[index]
        case 1:
            siblings.insert(int(random.integers(len(siblings) + 1)), node)
        case 2:
            siblings[index:index] = [node] * int(2 ** random.integers(1, 8))
        case 3:
            other = int(random.integers(len(siblings)))
            siblings[index], siblings[other] = siblings[other], node
        case 4:
            siblings[index] = replace(node, number=int(random.choice([0, 1, 2, 5, 7, 8, 12, 100])))
        case 5:
            siblings[index] = replace(node, type=int(random.integers(8)))
        case 6:
            siblings[index] = replace(node, claim=EDGES[int(random.integers(len(EDGES)))], type=2)
        case 7:
            siblings[index] = replace(node, claim=_about(random, node), type=2)
        case 8:
            siblings[index] = replace(node, type=0, value=EDGES[int(random.integers(len(EDGES)))])
        case 9:
            # The node in itself, many times over.
            nested = serialised([node])
            for _ in range(int(2 ** random.integers(1, 9))):
                nested = varint(node.number << 3 | 2) + varint(len(nested)) + nested
                if len(nested) > 100_000:
                    break
            siblings[index] = Node(node.number, 2, nested)
        case _:
            body = serialised(inner) if isinstance(inner, list) else inner
            if isinstance(body, bytes):
                siblings[index] = replace(node, value=spoil_bytes(random, body))
            else:
                siblings[index] = replace(node, value=int(random.integers(2**63)))
    return serialised(nodes)


def _about(random: Random, node: Node) -> int:
    """A length that is nearly right."""
    length = len(serialised([node]))
    return max(0, length + int(random.integers(-4, 5)))


# -- fields at known places ------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Numbers of a format at places that a reader looks at: offset and width in bytes."""

    numbers: list[tuple[int, int]] = field(default_factory=list)

    def spoil(self, random: Random, content: bytes) -> bytes:
        """Put another number, an odd one or a neighbour, in one of the places."""
        at, width = self.numbers[int(random.integers(len(self.numbers)))]
        if at + width > len(content):
            return spoil_bytes(random, content)
        old = int.from_bytes(content[at : at + width], "little")
        choices = [
            EDGES[int(random.integers(len(EDGES)))],
            old + int(random.integers(-3, 4)),
            old << int(random.integers(1, 8)),
            int(random.integers(2**16)),
        ]
        number = choices[int(random.integers(len(choices)))] % (1 << 8 * width)
        return content[:at] + number.to_bytes(width, "little") + content[at + width :]


def spoil(
    random: Random, content: bytes, ways: Sequence[Callable[[Random, bytes], bytes]]
) -> bytes:
    """One change, or a few: two readers in a row must be deceived less often than one."""
    for _ in range(min(int(random.geometric(0.5)), 5)):
        content = ways[int(random.integers(len(ways)))](random, content)
    return content
