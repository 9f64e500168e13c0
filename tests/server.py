# SPDX-License-Identifier: Apache-2.0
"""A web server on the loopback address that answers as it is told, well or badly."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Calls the answer to a path, or that to all others; what is asked for is kept by the server."""

    server: "Server"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((path, self.headers.get("Range", "")))
        self.server.answers.get(path, self.server.answers.get("", missing))(self)

    def send(self, status: int, content: bytes = b"", **headers: str) -> None:
        """A whole answer, or with another `Content_Length` one that is cut off; None: none is sent."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = dict(answers), list[tuple[str, str]]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what is tested."""


@contextmanager
def serving(answers: Mapping[str, Answer]) -> Iterator[Server]:
    server = Server(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def missing(handler: Handler) -> None:
    handler.send(404, b"no such file")


def file_of(content: bytes) -> Answer:
    """A file, whole or from the byte on that is asked for."""

    def answer(handler: Handler) -> None:
        asked = handler.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start >= len(content):
            handler.send(416)
        elif start:
            length = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.send(206, content[start:], Content_Range=length)
        else:
            handler.send(200, content)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other; the last one stays."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def cut_off(content: bytes, after: int) -> Answer:
    """Promises all that is asked for, and sends the first bytes of it."""

    def answer(handler: Handler) -> None:
        asked = handler.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        rest = content[start:]
        headers = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        handler.send(206 if start else 200, rest[:after], Content_Length=str(len(rest)), **headers)

    return answer


def redirect(to: str) -> Answer:
    return lambda handler: handler.send(302, Location=to)
