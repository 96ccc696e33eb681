# SPDX-License-Identifier: Apache-2.0
"""Explains texts over gRPC with the rules of a good client: one channel for all
calls, a deadline on each, and a retry where the server says that it can help,
after the time that it says. docs/clients.md says how the modules are made.

Usage: python explain.py HOST:PORT MODEL TEXT...
"""
import random
import struct
import sys
import time
import zlib

import grpc
from google.rpc import error_details_pb2, status_pb2
from limpid.v1 import explanation_pb2, explanation_pb2_grpc

ATTEMPTS = 5
# Nothing has been computed, or it can be computed again.
RETRIABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}


def details_of(error):
    """The google.rpc details of an error by their type; a gateway's own errors
    have none."""
    found = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                for kind in (error_details_pb2.ErrorInfo,
                             error_details_pb2.BadRequest,
                             error_details_pb2.RetryInfo):
                    if detail.Is(kind.DESCRIPTOR):
                        found[kind] = kind()
                        detail.Unpack(found[kind])
    return found


def explain(stub, request, seconds=30):
    end = time.monotonic() + seconds
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return stub.Explain(request, timeout=end - time.monotonic())
        except grpc.RpcError as error:
            retry = details_of(error).get(error_details_pb2.RetryInfo)
            if retry is not None:
                wait = retry.retry_delay.ToTimedelta().total_seconds()
            else:
                # Without advice, and for all at different times.
                wait = random.uniform(0, 0.1 * 2 ** attempt)
            # RESOURCE_EXHAUSTED without advice is for good: too large.
            final = error.code() not in RETRIABLE or (
                retry is None and
                error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED)
            if final or attempt == ATTEMPTS or time.monotonic() + wait > end:
                raise
            time.sleep(wait)


def floats(tensor):
    """Elements of a float32 tensor in row-major order."""
    header = tensor.header
    if zlib.crc32(tensor.data) != header.crc32:
        raise ValueError(f"{header.name} arrived damaged")
    return struct.unpack(f"<{len(tensor.data) // 4}f", tensor.data)


def main():
    address, model, *texts = sys.argv[1:]
    with grpc.insecure_channel(address, options=[
            ("grpc.max_receive_message_length", 64 << 20)]) as channel:
        stub = explanation_pb2_grpc.ExplanationServiceStub(channel)
        for text in texts:
            request = explanation_pb2.ExplainRequest(model=model)
            request.input.text = text
            request.method = "integrated-gradients"
            request.options.steps = 32
            try:
                reply = explain(stub, request)
            except grpc.RpcError as error:
                print(f"{error.code().name}: {error.details()}")
                for one in details_of(error).get(
                        error_details_pb2.BadRequest,
                        error_details_pb2.BadRequest()).field_violations:
                    print(f"  {one.field}: {one.description}")
                continue
            tensors = {one.header.name: one for one in reply.tensors}
            values = floats(tensors["attribution"])
            best = reply.summary.predictions[0]
            print(f"{best.piece} {best.probability:.3f} "
                  f"(residual {reply.summary.max_reconstruction_error:.1e})")
            for token, value in zip(reply.header.tokens, values):
                print(f"  {value:+.4f} {token.piece!r}")


if __name__ == "__main__":
    main()
