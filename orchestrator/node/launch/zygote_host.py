"""The host of a shared zygote: a process that accepts workers and passes their requests for copies to the zygote."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from orchestrator.node.launch import zygote
from orchestrator.node.launch.zygote_sharing import trusted
from orchestrator.node.shared import messages, processes

_PIPE_SIZE = 2**16  # bytes that fit in a pipe


def main() -> NoReturn:
    """In a fresh interpreter: be a host, and start its zygote."""
    listener, (spec, printed) = socket.socket(fileno=int(sys.argv[1])), map(int, sys.argv[2:4])
    processes.leave_parent([listener.fileno(), spec, printed])
    os.setsid()
    ours, theirs = messages.channel_pair()
    if not os.fork():
        ours.close()
        listener.close()
        os.close(spec)
        os.close(printed)
        zygote.serve(theirs)
    theirs.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keeper
    messages.send(ours, {"do": "import"}, [spec, printed])
    try:
        os.close(spec)
        Host(listener, ours, printed).serve()
    finally:
        os._exit(0)


class Host:
    """Passes requests for copies on to the zygote, once it has imported."""

    def __init__(self, listener: socket.socket, zygote: socket.socket, printed: int) -> None:
        """`zygote`: the channel to it. `printed`: the file with what its import prints."""
        self._listener, self._zygote, self._printed = listener, zygote, printed
        self._connections: dict[int, socket.socket] = {}
        self._requests: list[tuple[socket.socket, socket.socket]] = []  # connections, and channels for their copies
        self._owner: socket.socket | None = None
        self._owner_informed = False
        self._import_result: dict[str, Any] | None = None  # the zygote's message about its import, or about its end
        self._over = False
        self._poll = select.poll()
        for each in (listener, zygote):
            self._poll.register(each, select.POLLIN)

    def serve(self) -> None:
        """Serve until nobody is connected, the owner disconnects, or the zygote dies."""
        self._accept()
        while not self._over and (self._connections or self.accept_last()):
            for fd, _ in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._zygote.fileno():
                    self._handle_zygote_message()
                else:
                    self._handle_message(self._connections[fd])
            self._answer_requests()
        self.close()

    def _accept(self) -> None:
        connection = trusted(self._listener.accept()[0])
        if connection:
            self._connections[connection.fileno()] = connection
            self._poll.register(connection, select.POLLIN)

    def accept_last(self) -> bool:
        """Stop listening, so that the next worker starts another host; returns whether anybody has come before that."""
        if self._listener.fileno() >= 0:
            self._poll.unregister(self._listener)
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._accept()
            self._listener.close()
        return bool(self._connections)

    def _handle_message(self, connection: socket.socket) -> None:
        """A message from a worker or from the owner, or the end of a connection."""
        message, fds = messages.receive(connection)
        if message is not None and fds:
            self._requests.append((connection, socket.socket(fileno=fds[0])))
        elif message is not None and message["do"] == "own":
            self._owner = connection
        elif connection is self._owner:  # this end stays open: the owner waits until everything has ended
            self._over = True
        else:
            self._poll.unregister(connection)
            self._connections.pop(connection.fileno()).close()

    def _handle_zygote_message(self) -> None:
        message, _ = messages.receive(self._zygote)
        self._import_result = message or {}
        if "checked" not in self._import_result:
            self._over = True
            self._listener.close()  # before any worker hears of it and connects again
        elif self._import_result["unsafe"]:
            self._poll.unregister(self._zygote)
            self._end_zygote()  # it may hold a GPU

    def _answer_requests(self) -> None:
        """Tell the owner how the import went, and pass on or refuse the requests that can be answered by now."""
        if self._owner and self._import_result and not self._owner_informed:
            messages.send(self._owner, self._import_result)
            self._owner_informed = True
        for request in list(self._requests):
            connection, channel = request
            left = connection.fileno() < 0  # the worker has disconnected
            if self._import_result is None and not (left and self._connections):
                continue  # the import goes on; if nobody is connected any more, the zygote is ended before the answer
            self._requests.remove(request)
            with channel:
                if left or self._zygote.fileno() < 0 or self._over:
                    result = self._import_result or {}
                    why = {key: value for key, value in result.items() if key != "checked" and value}
                    _refuse(channel, self._printed, why)
                else:
                    messages.send(self._zygote, {"do": "copy"}, [channel.fileno()])

    def close(self) -> None:
        """End the zygote, refuse the requests that are left, and disconnect."""
        self._listener.close()
        self._end_zygote()
        self._import_result = self._import_result or {}
        self._answer_requests()
        for connection in self._connections.values():  # last: the owner waits until nothing is left
            connection.close()

    def _end_zygote(self) -> None:
        """End the zygote and wait until its process tree is empty."""
        if self._zygote.fileno() >= 0:
            if self._import_result and "checked" in self._import_result and messages.end_politely(self._zygote):
                self._zygote.close()
                return
            with contextlib.suppress(OSError):
                self._zygote.shutdown(socket.SHUT_WR)
            while messages.receive(self._zygote)[0] is not None:
                pass
            self._zygote.close()


def _refuse(channel: socket.socket, printed: int, why: dict[str, Any]) -> None:
    """Answer in place of a copy. If an order has come already, its log gets what the import printed."""
    channel.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        message, fds = messages.receive(channel)
        while message is not None:
            if message["do"] == "run":
                files = zygote.OrderFiles(*fds)
                _write_end(files.log, messages.read_file(printed))
                files.close()
            message, fds = messages.receive(channel)
    if why:
        messages.send(channel, why)


def _write_end(pipe: int, text: bytes) -> None:
    """Write the end of a text, as much as fits, without blocking: the reader may be waiting for us, or have died."""
    text = text[-_PIPE_SIZE:]
    with contextlib.suppress(OSError):
        while text and select.select([], [pipe], [], 0)[1]:
            text = text[os.write(pipe, text[: select.PIPE_BUF]) :]
