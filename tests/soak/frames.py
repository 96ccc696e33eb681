# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 frames made by hand (RFC 9113, HPACK RFC 7541 without tables), so that
they can be wrong."""
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
WINDOW_UPDATE, CONTINUATION = 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
LARGEST_FRAME = 16384


def frame(kind, flags, stream, payload=b""):
    return (struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) +
            struct.pack(">I", stream) + payload)


def settings(**values):
    names = {"initial_window": INITIAL_WINDOW_SIZE}
    return frame(SETTINGS, 0, 0, b"".join(
        struct.pack(">HI", names[name], value)
        for name, value in values.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def integer(value, prefix, first=0):
    """An HPACK integer whose first byte has `prefix` bits of it."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def literal(name, value, first=0):
    """A header field; `first` = 0x40 puts it into the dynamic table."""
    name, value = (x if isinstance(x, bytes) else x.encode()
                   for x in (name, value))
    return (bytes([first]) + integer(len(name), 7) + name +
            integer(len(value), 7) + value)


def request_fields(path, *more):
    return [(":method", "POST"), (":scheme", "http"), (":path", path),
            (":authority", "soak"), ("content-type", "application/grpc"),
            ("te", "trailers"), *more]


def request_block(path, *more):
    return b"".join(literal(*field) for field in request_fields(path, *more))


def headers(stream, block, flags=END_HEADERS):
    return frame(HEADERS, flags, stream, block)


def data(stream, payload, flags=0):
    """DATA frames no larger than every peer takes."""
    pieces = [payload[i:i + LARGEST_FRAME]
              for i in range(0, len(payload), LARGEST_FRAME)] or [b""]
    return b"".join(frame(DATA, flags if i == len(pieces) - 1 else 0, stream,
                          piece) for i, piece in enumerate(pieces))


def grpc_message(payload, compressed=False):
    return struct.pack(">BI", compressed, len(payload)) + payload


def reset(stream, code=8):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def reset_streams(path, count, payload=None):
    """Streams that are reset as soon as they are opened, or as soon as a
    payload has been sent, in as few bytes as there can be: only the first has
    its fields spelled out."""
    fields = request_fields(path)
    first = b"".join(literal(*field, first=0x40) for field in fields)
    # The newest entry of the dynamic table is number 62.
    again = bytes(0x80 | 62 + i for i in reversed(range(len(fields))))
    return b"".join(
        headers(stream, first if stream == 1 else again) +
        (b"" if payload is None else data(stream, payload, END_STREAM)) +
        reset(stream) for stream in range(1, 2 * count, 2))


def dial(port, timeout=5, source="127.0.0.2"):
    """A connection from another address than the honest client's."""
    return socket.create_connection(("127.0.0.1", port), timeout,
                                    source_address=(source, 0))


def connect(port, first=None, timeout=10, **address):
    """A connection that has sent its preface and `first` or its settings."""
    connection = dial(port, timeout, **address)
    connection.sendall(PREFACE + (settings() if first is None else first))
    return connection
