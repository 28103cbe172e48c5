"""A web server on loopback that fails in the ways in which real ones do."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class FaultServer:
    """Serves what ``answers`` maps a path to; counts the requests in ``asked``.

    Use it in a ``with`` block; ``url(path)`` is the address of a path.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self._stop = threading.Event()

    def __enter__(self) -> "FaultServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            stop = self._stop

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.answers.get(self.path, status(404))(self)

            def log_message(self, *args: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None  # clients hang up on purpose
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"


def content(body: bytes, *, kind: str = "application/octet-stream") -> Answer:
    """Answer as a healthy server would."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _head(handler, len(body), kind)
        handler.wfile.write(body)

    return answer


def html_page() -> Answer:
    """Answer 200 with a web page, as hotel networks do."""
    return content(b"<!DOCTYPE html><html>Please log in</html>", kind="text/html")


def status(code: int) -> Answer:
    """Answer with an error status."""
    return lambda handler: handler.send_error(code)


def breaks_off(body: bytes, after: int) -> Answer:
    """Promise the whole body, send a part of it and hang up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _head(handler, len(body))
        handler.wfile.write(body[:after])

    return answer


def hangs(body: bytes = b"", after: int = 0, seconds: float = 20) -> Answer:
    """Send a part of the body, then nothing, and keep the connection open."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if after:
            _head(handler, len(body))
            handler.wfile.write(body[:after])
            handler.wfile.flush()
        handler.stop.wait(seconds)

    return answer


def together(body: bytes, clients: int, seconds: float = 60) -> Answer:
    """Send half of the body, wait until all clients are there, and send the rest."""
    meeting = threading.Barrier(clients, timeout=seconds)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        half = len(body) // 2
        _head(handler, len(body))
        handler.wfile.write(body[:half])
        handler.wfile.flush()
        meeting.wait()
        handler.wfile.write(body[half:])

    return answer


def _head(
    handler: BaseHTTPRequestHandler,
    length: int,
    kind: str = "application/octet-stream",
) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
