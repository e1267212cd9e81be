"""A server's application over HTTP on loopback, on a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Self

import uvicorn


class ServedApp:
    """Serves while its `with` lasts.

    Args:
        app: an ASGI application that answers under `/mcp`.
    """

    def __init__(self, app: Any) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        host, port = self._socket.getsockname()
        self.url = f"http://{host}:{port}/mcp"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
