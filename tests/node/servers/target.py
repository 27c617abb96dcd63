"""An HTTP target whose answer can be switched while it runs.

--answer FILE    the file holds a status code, `hang` (no answer) or `close` (the connection is
                 closed instead); it is read at each request
--command LINE   or: 200 when the shell command succeeds, 503 when it does not

The body is the host's name, so that a client knows who answered. GET /__hits answers how many
other requests there were, GET /__hits/PATH how many for that path, and neither counts itself. Each
request is a line on stdout, with the seconds of the clock before it.
"""

import argparse
import collections
import http.server
import subprocess
import sys
import threading
import time


class Target(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = collections.Counter()
    lock = threading.Lock()

    def word(self):
        options = self.server.options
        if options.answer:
            with open(options.answer, encoding="ascii") as file:
                return file.read().strip()
        done = subprocess.run(options.command, shell=True, timeout=5, check=False)
        return "200" if done.returncode == 0 else "503"

    def reply(self, status, text):
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/__hits"):
            path = self.path.removeprefix("/__hits")
            with Target.lock:
                count = Target.seen[path] if path else Target.seen.total()
            self.reply(200, str(count))
            return
        with Target.lock:
            Target.seen[self.path] += 1
        word = self.word()
        if word == "hang":
            # Until the client has had enough: the read ends when it closes.
            self.rfile.read(1)
        if word in ("hang", "close"):
            self.close_connection = True
            self.log_request(word)
            return
        self.reply(int(word), self.server.options.name)

    do_HEAD = do_GET

    def log_message(self, format, *args):
        print(f"{time.time():.3f}", self.client_address[0], format % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        # A client that goes away in the middle is no news.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--answer")
    what.add_argument("--command")
    options = parser.parse_args()
    server = Server(("0.0.0.0", options.port), Target)
    server.options = options
    server.serve_forever()


main()
