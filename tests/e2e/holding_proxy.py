"""A TCP proxy that holds back a server's answer in the middle."""

import select
import socket
import threading


class HoldingProxy:
    """Forwards connections to `address`. `limits`: once this many bytes from
    the server have passed through a connection, the proxy holds back the rest
    until release() or cut(). Each limit holds once, in order; only one
    connection at a time may have traffic.
    """

    def __init__(self, address, limits):
        host, port = address.rsplit(":", 1)
        self._target = host, int(port)
        self._limits = list(limits)
        self._changed = threading.Condition()
        self._held = None  # The server's and the client's end.
        self._cut = None  # The server's end of the last cut connection.
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def await_held(self, patience_s):
        """Returns whether a connection is held within this time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held is not None,
                                          patience_s)

    def release(self):
        """Lets the held connection continue, and holds nothing from here on."""
        with self._changed:
            self._limits.clear()
            self._held = None
            self._changed.notify_all()

    def cut(self):
        """Closes the held connection on both sides."""
        with self._changed:
            ends, self._held = self._held, None
            self._cut = ends[0]
            for end in ends:
                _shut_down(end)
            self._changed.notify_all()

    def close(self):
        self._listener.close()
        with self._changed:
            self._closed = True
            self._limits.clear()
            self._changed.notify_all()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._forward, daemon=True,
                             args=(client, server)).start()

    def _forward(self, client, server):
        back = threading.Thread(target=self._copy_and_hold, daemon=True,
                                args=(server, client))
        with client, server:
            back.start()
            self._copy(client, server)
            back.join()

    @staticmethod
    def _copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        _shut_down(source)
        _shut_down(sink)

    def _copy_and_hold(self, source, sink):
        passed = 0
        try:
            while data := source.recv(65536):
                while (limit := self._reached(passed + len(data))) is not None:
                    begin = max(0, limit - passed)
                    sink.sendall(data[:begin])
                    passed += begin
                    data = data[begin:] + self._hold(source, sink)
                sink.sendall(data)
                passed += len(data)
        except OSError:
            pass
        _shut_down(source)
        _shut_down(sink)

    def _reached(self, passed):
        """Returns the limit that this many bytes have reached, if any."""
        with self._changed:
            return (self._limits[0] if self._limits
                    and passed > self._limits[0] else None)

    def _hold(self, source, sink):
        """Waits until the hold is over; returns what has arrived meanwhile. The
        server's socket never fills, because the client's flow control stops the
        server."""
        came = []
        with self._changed:
            if not self._limits:  # The proxy has just been released.
                return b""
            self._limits.pop(0)
            self._held = source, sink
            self._changed.notify_all()
        while True:
            with self._changed:
                if self._cut is source:
                    raise ConnectionError("cut")
                if self._held is None or self._closed:
                    return b"".join(came)
            readable, _, _ = select.select([source], [], [], 0.01)
            if readable:
                data = source.recv(65536)
                if data:
                    came.append(data)
                else:
                    with self._changed:
                        self._changed.wait_for(
                            lambda: self._held is None or self._closed)


def _shut_down(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
