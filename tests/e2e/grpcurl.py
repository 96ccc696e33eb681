# SPDX-License-Identifier: Apache-2.0
"""Sends what a command line of grpcurl would send, since Debian has no grpcurl:
finds the method in the server's own reflection, reads -d as the method's message
and makes the call. Whatever the documents' commands could have wrong is wrong
here as well: flags, address, service, method, fields."""
import argparse
import shlex

import grpc
from google.protobuf import (descriptor_pb2, descriptor_pool, json_format,
                             message_factory)

REFLECTION = ("/grpc.reflection.v1alpha.ServerReflection/"
              "ServerReflectionInfo")


def field(number, content):
    """A length-delimited field of a message."""
    data = content if isinstance(content, bytes) else content.encode()
    length, size = b"", len(data)
    while size >= 128:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def fields(data):
    """(number, bytes) of a message's length-delimited fields."""
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                return value
    at = 0
    while at < len(data):
        key = varint()
        size = varint()
        if key & 7 == 2:
            yield key >> 3, data[at:at + size]
            at += size


def reflect(channel, request):
    call = channel.stream_stream(REFLECTION, lambda data: data,
                                 lambda data: data)
    (reply,) = call(iter([request]), timeout=10)
    return dict(fields(reply))


def services(channel):
    listed = reflect(channel, field(7, ""))[6]
    return [dict(fields(one))[1].decode() for _, one in fields(listed)]


def pool_of(channel, symbol):
    """All descriptors that a symbol needs; KeyError if the server has none."""
    pool, there = descriptor_pool.DescriptorPool(), set()

    def take(request):
        """Files come in any order, and go in after those that they need."""
        for _, data in fields(reflect(channel, request)[4]):
            one = descriptor_pb2.FileDescriptorProto.FromString(data)
            if one.name in there:
                continue
            there.add(one.name)
            for name in one.dependency:
                if name not in there:
                    take(field(3, name))
            pool.Add(one)
    take(field(4, symbol))
    return pool


def run(command):
    """The replies of a command; grpc.RpcError if the server refuses."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-max-time", type=float, default=60)
    parser.add_argument("-d", default="{}")
    parser.add_argument("address")
    parser.add_argument("words", nargs="+")
    arguments = parser.parse_args(shlex.split(command)[1:])
    with grpc.insecure_channel(arguments.address) as channel:
        verb, *rest = arguments.words
        if verb == "list":
            return services(channel)
        if verb == "describe":
            return [pool_of(channel, rest[0]).FindMessageTypeByName(rest[0])]
        service, method = verb.split("/")
        found = pool_of(channel, service).FindServiceByName(
            service).FindMethodByName(method)
        request = message_factory.GetMessageClass(found.input_type)()
        json_format.Parse(arguments.d, request)
        reply = message_factory.GetMessageClass(found.output_type)
        kind = (channel.unary_stream if found.server_streaming
                else channel.unary_unary)
        result = kind(f"/{verb}", request.__class__.SerializeToString,
                      reply.FromString)(request, timeout=arguments.max_time)
        return list(result) if found.server_streaming else [result]
