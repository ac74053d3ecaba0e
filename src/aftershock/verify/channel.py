"""Length-prefixed messages over a socket between the judge and its workers."""

import socket
import struct

_HEADER = struct.Struct("!I")
_READ = 1 << 16


class Channel:
    """One end of a connection. Losing the other end raises EOFError, a wait past its seconds TimeoutError."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()

    def fileno(self) -> int:
        """The file descriptor, so that a selector can wait on the channel."""
        return self._socket.fileno()

    def send(self, message: bytes, seconds: float) -> None:
        """Send one message; the other end has `seconds` to take it."""
        self._socket.settimeout(seconds)
        try:
            self._socket.sendall(_HEADER.pack(len(message)) + message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EOFError("the other end is gone") from error

    def receive_ready(self, seconds: float | None = 0.0) -> list[bytes]:
        """Wait up to `seconds` (None: as long as the other end lives) for bytes; return the messages now whole."""
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return []
        except ConnectionResetError as error:
            raise EOFError("the other end is gone") from error
        if not data:
            raise EOFError("the other end is gone")
        self._buffer += data
        return self._whole_messages()

    def receive(self) -> bytes:
        """Wait for one message, for as long as the other end lives; only for ends that get one at a time."""
        while not (messages := self.receive_ready(None)):
            pass
        return messages[0]

    def close(self) -> None:
        """Close this end; the other sees EOFError."""
        self._socket.close()

    def _whole_messages(self) -> list[bytes]:
        messages, start = [], 0
        while len(self._buffer) >= start + _HEADER.size:
            (length,) = _HEADER.unpack_from(self._buffer, start)
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            messages.append(bytes(self._buffer[start + _HEADER.size : end]))
            start = end
        del self._buffer[:start]
        return messages
