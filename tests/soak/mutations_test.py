# SPDX-License-Identifier: Apache-2.0
"""Every field of a request, set to every kind of wrong and right value, through
the real engine: whatever comes back blames the sender or serves."""
import random

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor as Field
from harness import explain_once, explain_request, stream_call

NUMBERS = (0, 1, -1, 2, 7, 8, 63, 1025, 2**31 - 1, -2**31, 2**63 - 1, -2**63)
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("inf"),
         float("-inf"), float("nan"))
TEXTS = ("", "a", "raw-attention", "integrated-gradients", "occlusion",
         "recall-mamba", "../x", "\x00", "é" * 300, "A" * 5000)
OURS = {"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED", "UNAVAILABLE"}


RANGES = {Field.CPPTYPE_INT32: (-2**31, 2**31),
          Field.CPPTYPE_UINT32: (0, 2**32),
          Field.CPPTYPE_INT64: (-2**63, 2**63),
          Field.CPPTYPE_UINT64: (0, 2**64)}


def values(field):
    if field.cpp_type in RANGES:
        low, high = RANGES[field.cpp_type]
        return [n for n in NUMBERS if low <= n < high]
    if field.cpp_type == Field.CPPTYPE_ENUM:
        return [v.number for v in field.enum_type.values] + [99, -1]
    if field.cpp_type == Field.CPPTYPE_BOOL:
        return [False, True]
    if field.cpp_type in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        return REALS
    if field.type == Field.TYPE_BYTES:
        return [t.encode() for t in TEXTS] + [b"\x89PNG\r\n\x1a\n", b"\xff\xd8"]
    return TEXTS


def leaves(descriptor, path=()):
    """Paths of all fields that hold values; none contains itself."""
    for field in descriptor.fields:
        if field.cpp_type == Field.CPPTYPE_MESSAGE:
            yield from leaves(field.message_type, path + (field,))
        else:
            yield path + (field,)


def place(message, path):
    """The message that holds the path's last field; made where missing."""
    for field in path[:-1]:
        inner = getattr(message, field.name)
        if field.is_repeated:
            message = inner[0] if inner else inner.add()
        else:
            inner.SetInParent()
            message = inner
    return message


def set_field(message, path, value):
    holder, field = place(message, path), path[-1]
    if field.is_repeated:
        getattr(holder, field.name).append(value)
    else:
        setattr(holder, field.name, value)


def outcome(channel, request):
    try:
        explain_once(channel, request, timeout=5)
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


def stream_outcome(channel, request):
    try:
        for _ in stream_call(channel, request, timeout=5):
            pass
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


@pytest.mark.parametrize("model", ["recall-mamba", "recall-rwkv7"])
def test_every_field(start, full, model):
    server = start(models=(model,), config={"limits": {
        "max_request_seconds": 4, "max_request_memory_bytes": 1 << 28}})
    paths = list(leaves(explain_request().DESCRIPTOR))
    seen, count = {}, 0

    def ask(channel, request):
        nonlocal count
        count += 1
        ask_with = stream_outcome if count % 2 else outcome
        code = ask_with(channel, request)
        seen[code] = seen.get(code, 0) + 1
        assert code not in OURS, f"{code}: {request}"

    with server.channel() as channel:
        for path in paths:
            for value in values(path[-1]):
                request = explain_request(model)
                set_field(request, path, value)
                ask(channel, request)
        dice = random.Random(1)
        for _ in range(20000 if full else 500):
            request = explain_request(model)
            for _ in range(dice.randint(2, 5)):
                path = dice.choice(paths)
                set_field(request, path, dice.choice(values(path[-1])))
            ask(channel, request)
        # It has served, and still does.
        assert seen["OK"] > 50, seen
        explain_once(channel, explain_request(model))
    print(f"figure: {len(paths)} fields of {model}, {count} requests: {seen}")
