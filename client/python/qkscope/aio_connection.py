"""The asyncio call layer: connection.py's twin. For one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Optional

import grpc
import grpc.aio

from qkscope.calls import METHODS, Call, Deadline, Options, serialize
from qkscope.connection import PATIENCE_S, serves
from qkscope.errors import from_rpc_error
from qkscope.server_list import ServerList, replica_of
from qkscope.v1 import analysis_pb2 as v1


class AsyncEndpoint:
    """A channel, and the API's methods on it. Made inside the event loop."""

    def __init__(self, options: Options, address: str,
                 round_robin: bool) -> None:
        arguments = options.channel_arguments(round_robin)
        credentials = options.credentials()
        self.channel = (
            grpc.aio.insecure_channel(address, arguments)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, arguments))
        self.methods = {
            name: getattr(self.channel, kind)(
                path, request_serializer=serialize,
                response_deserializer=reader)
            for name, (kind, path, reader) in METHODS.items()}

    async def settle(self, patience_s: float) -> Optional[bool]:
        """Asks the server whether it serves. None: it has not answered within
        this time."""
        try:
            answer = await self.methods["Check"](v1.GetModelRequest(),
                                                 timeout=patience_s)
        except grpc.RpcError as error:
            return serves(error.code())
        return serves(grpc.StatusCode.OK, answer)


class AsyncConnection:
    """The servers of one AsyncLab."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._one: Optional[AsyncEndpoint] = None
        self._list: Optional[ServerList[AsyncEndpoint]] = None
        if options.list_path is not None:
            self._list = ServerList(
                options.list_path,
                lambda address: AsyncEndpoint(options, address, True))

    async def choose(self, request_id: str,
                     deadline: Deadline) -> AsyncEndpoint:
        """The server for a call: one that serves, or, if none does, the first
        of the list. Unavailable: the list has none."""
        if self._list is None:
            if self._one is None:
                self._one = AsyncEndpoint(self.options, self.options.server,
                                          self.options.several)
            return self._one
        endpoints = self._list.candidates(replica_of(request_id))
        waiting = True
        while waiting:
            waiting = False
            for endpoint in endpoints:
                left = deadline.left()
                if left == 0:
                    return endpoints[0]
                state = await endpoint.settle(
                    PATIENCE_S if left is None else min(PATIENCE_S, left))
                if state:
                    return endpoint
                waiting = waiting or state is None
        return endpoints[0]

    def _start(self, call: Call, endpoint: AsyncEndpoint,
               deadline: Deadline) -> Any:
        return endpoint.methods[call.method](
            call.request, timeout=deadline.left(), metadata=grpc.aio.Metadata(
                *self.options.metadata(call.request_id)))

    async def unary(self, call: Call, deadline: Deadline,
                    endpoint: AsyncEndpoint) -> Any:
        """Makes a unary call, and returns its answer."""
        try:
            return await self._start(call, endpoint, deadline)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.options.server) from None

    async def stream(self, call: Call,
                     deadline: Deadline) -> AsyncGenerator[Any, None]:
        """Makes a call whose answer is a stream; yields what comes."""
        endpoint = await self.choose(call.request_id, deadline)
        answers = self._start(call, endpoint, deadline)
        try:
            async for answer in answers:
                yield answer
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.options.server) from None
        finally:
            answers.cancel()  # Its caller may have gone.

    @staticmethod
    async def wait(delay: float) -> None:
        await asyncio.sleep(delay)

    async def close(self) -> None:
        endpoints = self._list.all() if self._list else [self._one]
        for endpoint in endpoints:
            if endpoint is not None:
                await endpoint.channel.close()
