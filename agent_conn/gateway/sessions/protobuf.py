"""The protobuf wire format, as far as the end-of-turn messages need it.

A message is its fields one after another: a number, a wire type and a value (see "Encoding" in
the documentation of Protocol Buffers). This module needs no generated code and no package.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeAlias

from agent_conn.gateway.sessions.protocol import ProtocolError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
MAX_VARINT_BYTES = 10

Value: TypeAlias = int | bytes


def read_fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Give the fields of a message in order; a fixed-size value is given as its bytes.

    Raises:
        ProtocolError: `data` is not a protobuf message.
    """
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if wire_type == LENGTH:
            size, at = _read_varint(data, at)
        elif wire_type in FIXED_SIZES:
            size = FIXED_SIZES[wire_type]
        else:
            raise ProtocolError("the message has an unknown protobuf wire type")
        if at + size > len(data):
            raise ProtocolError("the message ends within a protobuf field")
        yield number, data[at : at + size]
        at += size


def field(number: int, value: float | bytes | str) -> bytes:
    """Write one field: an int as a varint, a float as four bytes, text and bytes by length."""
    if isinstance(value, float):
        return _varint(number << 3 | FIXED32) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    payload = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | LENGTH) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[at : at + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ProtocolError("the message has a broken protobuf number")
