"""Readers whose worker says nothing: what they answered last counts while they may be starting again."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from logstore.client.admin import served
from logstore.log.membership.nodes import Announcement


@contextmanager
def cluster_page(revision, port=0):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"nodes": [{"node": "n"}], "revision": revision}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", port), Page) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join()


def test_readers_that_were_behind_are_waited_for_until_they_answer_anew(monkeypatch):
    still_read = served._StillRead(5)
    with cluster_page(4) as port:
        silent = [Announcement("n", 0, f"http://127.0.0.1:{port}", "default")]
        assert "serve revision 4 of 5" in still_read.reasons(silent)[0]
    assert "serve revision 4 of 5" in still_read.reasons(silent)[0]  # they are started again
    with cluster_page(5, port):
        assert still_read.reasons(silent) == []
    assert still_read.reasons(silent) == []
    with cluster_page(4, port):
        assert still_read.reasons(silent) != []
    monkeypatch.setattr(served, "RESTART_S", 0.0)
    assert still_read.reasons(silent) == []  # nobody starts them again


def test_readers_whose_worker_speaks_again_are_its_to_answer_for():
    still_read = served._StillRead(5)
    with cluster_page(4) as port:
        assert still_read.reasons([Announcement("n", 0, f"http://127.0.0.1:{port}", "default")]) != []
        assert still_read.reasons([]) == []
