"""A server that speaks OpenAI's chat completions on a local port, and misbehaves as it is told."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANG_SECONDS = 60


@contextmanager
def endpoint(reply):
    """Serve `reply(prompt, attempt)`: a message (dict or text), a (status, error) pair, or "hang".

    Yields the server: `url`, and `requests`, the bodies it was sent.
    """
    tries, lock, over = Counter(), threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.requests.append(body)
                server.keys.add(self.headers.get("Authorization"))
                tries[body["messages"][-1]["content"], body.get("seed")] += 1
                attempt = tries[body["messages"][-1]["content"], body.get("seed")]
            said = reply(body["messages"][-1]["content"], attempt)
            if said == "hang":
                over.wait(HANG_SECONDS)
                said = (500, "late")
            status, content = said if isinstance(said, tuple) else (200, completion(said))
            if status != 200:
                content = {"error": {"message": content, "type": "error", "code": None}}
            data = json.dumps(content).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client gave up waiting
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.requests, server.keys = True, [], set()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def completion(said):
    """Return a whole response for a message, or its text; `finish` in the message is why it ended."""
    message = {"role": "assistant", **({"content": said} if isinstance(said, str) else said)}
    finish = message.pop("finish", "stop")
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }
