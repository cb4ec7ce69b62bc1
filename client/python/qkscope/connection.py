"""The blocking call layer: channels, and calls on them. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any, Optional

import grpc
import grpc.experimental

from qkscope.calls import METHODS, SERVING, Call, Deadline, Options, serialize
from qkscope.errors import Cancelled, from_rpc_error
from qkscope.server_list import ServerList, replica_of
from qkscope.v1 import analysis_pb2 as v1

# How long a call waits for one server before it asks the next one, too.
PATIENCE_S = 0.25


class Endpoint:
    """A channel, and the API's methods on it."""

    def __init__(self, options: Options, address: str,
                 round_robin: bool) -> None:
        self.address = address
        arguments = options.channel_arguments(round_robin)
        # The reader of a stream then waits for events itself, instead of a
        # thread that hands them over.
        arguments.append(
            (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1))
        credentials = options.credentials()
        self.channel = (
            grpc.insecure_channel(address, arguments) if credentials is None
            else grpc.secure_channel(address, credentials, arguments))
        self.methods = {
            name: getattr(self.channel, kind)(
                path, request_serializer=serialize,
                response_deserializer=reader)
            for name, (kind, path, reader) in METHODS.items()}

    def settle(self, patience_s: float) -> Optional[bool]:
        """Asks the server whether it serves. None: it has not answered within
        this time."""
        try:
            answer = self.methods["Check"](v1.GetModelRequest(),
                                           timeout=patience_s)
        except grpc.RpcError as error:
            return serves(error.code())
        return serves(grpc.StatusCode.OK, answer)


def serves(code: grpc.StatusCode, answer: Any = None) -> Optional[bool]:
    """What the end of a health check says: None if nothing yet."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return None
    if answer is not None:
        return bool(answer.offset == SERVING)
    # Any other status comes from a server that is there.
    return code is not grpc.StatusCode.UNAVAILABLE


class Connection:
    """The servers of one Lab."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._one: Optional[Endpoint] = None
        self._list: Optional[ServerList[Endpoint]] = None
        if options.list_path is not None:
            self._list = ServerList(
                options.list_path,
                lambda address: Endpoint(options, address, True))
        else:
            self._one = Endpoint(options, options.server, options.several)

    def choose(self, request_id: str, deadline: Deadline) -> Endpoint:
        """The server for a call: one that serves, or, if none does, the first
        of the list. Unavailable: the list has none."""
        if self._list is None:
            assert self._one is not None
            return self._one
        endpoints = self._list.candidates(replica_of(request_id))
        waiting = True
        while waiting:
            waiting = False
            for endpoint in endpoints:
                left = deadline.left()
                if left == 0:
                    return endpoints[0]
                state = endpoint.settle(PATIENCE_S if left is None
                                        else min(PATIENCE_S, left))
                if state:
                    return endpoint
                waiting = waiting or state is None
        return endpoints[0]

    def _start(self, call: Call, endpoint: Endpoint, deadline: Deadline,
               start: Any) -> Any:
        return start(call.request, timeout=deadline.left(),
                     metadata=self.options.metadata(call.request_id))

    def unary(self, call: Call, deadline: Deadline,
              endpoint: Endpoint) -> Any:
        """Makes a unary call, and returns its answer."""
        future = self._start(call, endpoint, deadline,
                             endpoint.methods[call.method].future)
        self._begin(future)
        try:
            return future.result()
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.options.server) from None
        finally:
            self._end(future)

    def stream(self, call: Call,
               deadline: Deadline) -> Generator[Any, None, None]:
        """Makes a call whose answer is a stream; yields what comes.
        `call.request` is an iterator of messages if the method reads a stream,
        too. QkscopeError: the call has failed."""
        endpoint = self.choose(call.request_id, deadline)
        answers = self._start(call, endpoint, deadline,
                              endpoint.methods[call.method])
        self._begin(answers)
        try:
            yield from answers
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.options.server) from None
        finally:
            self._end(answers)

    def _begin(self, call: Any) -> None:
        """Knows of a call in progress."""

    def _end(self, call: Any) -> None:
        call.cancel()  # Its caller may have gone. Nothing if it has ended.

    def wait(self, delay: float) -> None:
        time.sleep(delay)

    def close(self) -> None:
        endpoints = self._list.all() if self._list else [self._one]
        for endpoint in endpoints:
            if endpoint is not None:
                endpoint.channel.close()


class Scope(Connection):
    """Calls on another connection that can be ended together."""

    def __init__(self, parent: Connection) -> None:
        # pylint: disable=super-init-not-called
        self.options = parent.options
        self._parent = parent
        self._lock = threading.Lock()
        self._calls: set[Any] = set()
        self._over = threading.Event()

    def choose(self, request_id: str, deadline: Deadline) -> Endpoint:
        return self._parent.choose(request_id, deadline)

    def _begin(self, call: Any) -> None:
        with self._lock:
            self._calls.add(call)
        if self._over.is_set():
            call.cancel()

    def _end(self, call: Any) -> None:
        with self._lock:
            self._calls.discard(call)
        call.cancel()

    def wait(self, delay: float) -> None:
        if self._over.wait(delay):
            raise Cancelled("the call was cancelled")

    def end(self) -> None:
        """Ends all calls, and those to come. Any thread may call it."""
        self._over.set()
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def close(self) -> None:
        self.end()
