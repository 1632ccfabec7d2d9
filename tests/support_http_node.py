"""A small real HTTP server that follows the contract of the read API, for clients to be tested against."""

import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

import msgpack
import orjson

from logstore.model.partitioner import partition_of

EPOCH = "ab" * 16
PARTITIONS = 4


class HttpNode(ThreadingHTTPServer):
    """Serves `rows` of the table `t`; what it does not own it sends to `other`."""

    daemon_threads = True
    request_queue_size = 256  # the usual five lose connections that many open at once, for seconds each

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rows, self.deleted, self.owned, self.other = {}, set(), set(range(PARTITIONS)), None
        self.seen, self.script, self.bound = [], [], 1000
        self.asks_others = False  # for rows of a list that it does not own; it has them all here
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        assert isinstance(sys.exc_info()[1], ConnectionError), "the test's server failed"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpNode

    def log_message(self, *_):
        pass

    def do_GET(self):
        node, url = self.server, urlsplit(self.path)
        node.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if node.script:
            return self._problem(*node.script.pop(0))
        parts = url.path.split("/")
        if parts[1:3] == ["v1", "tables"] and parts[3] != "t":
            return self._problem(404, "no-such-table", {})
        if parts[4:5] == ["changes"]:
            page = {"events": [], "next": f"{EPOCH}-0-100", "live": True}
            return self._send(200, msgpack.packb(page), {"Content-Type": "application/msgpack"})
        if parts[4:5] == ["outcomes"]:
            return self._outcome(*map(int, parts[5:]))
        if len(parts) == 4:
            return self._send(
                200, orjson.dumps({"name": "t", "partitions": PARTITIONS}), {"Content-Type": "application/json"}
            )
        if len(parts) == 5:
            return self._page(parse_qs(url.query))
        return self._row(unquote_to_bytes(parts[5]), wide="versions=" in url.query)

    def do_POST(self):
        node = self.server
        node.seen.append((self.path, dict(self.headers.items())))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if node.script:
            return self._problem(*node.script.pop(0))
        if self.path.endswith("/outcomes:get"):
            return self._outcomes(**orjson.loads(body))
        keys = [b64decode(k["base64"]) if isinstance(k, dict) else k.encode() for k in orjson.loads(body)["keys"]]
        assert 1 <= len(keys) <= 1000
        results, unprocessed = [], []
        for key in keys:
            if partition_of(key, PARTITIONS) not in node.owned and not node.asks_others:
                unprocessed.append({"key": key, "reason": "not-owner"})
            elif len(results) == node.bound:
                unprocessed.append({"key": key, "reason": "bounds"})
            else:
                results.append(self._result(key) if key in node.rows else {"key": key, "found": False})
        return self._list({"results": results, "unprocessed": unprocessed})

    def _row(self, key, *, wide):
        node, partition = self.server, partition_of(key, PARTITIONS)
        if partition not in node.owned:
            return self._problem(421, "not-owner", {"LS-Owner": node.other} if node.other else {})
        headers = {"LS-Partition": str(partition), "LS-Token": f"{EPOCH}-{partition}-100"}
        if key not in node.rows:
            return self._problem(404, "not-found", headers, deleted=key in node.deleted)
        headers["LS-Version"] = "7"
        if wide:
            cell = dict(zip(("family", "qualifier", "version", "timestamp", "value"), self._cell(key), strict=True))
            body = msgpack.packb({"key": key, "version": 7, "cells": [cell]})
            return self._send(200, body, {**headers, "Content-Type": "application/msgpack"})
        return self._send(200, node.rows[key], {**headers, "Content-Type": "application/octet-stream"})

    def _outcome(self, partition=0, offset=7):
        """Every conditional write is applied here."""
        if partition not in self.server.owned:
            return self._problem(421, "not-owner", {"LS-Owner": self.server.other} if self.server.other else {})
        token = f"{EPOCH}-{partition}-{offset + 1}"
        body = {
            "outcome": "applied", "version": offset, "reason": None, "first": None, "first_outcome": None,
            "partition": partition, "offset": offset, "token": token,
        }  # fmt: skip
        return self._send(200, orjson.dumps(body), {"Content-Type": "application/json", "LS-Token": token})

    def _outcomes(self, partition, offsets):
        fields = {"outcome": "applied", "reason": None, "first": None, "first_outcome": None}
        entries = [{"offset": offset, "version": offset, **fields} for offset in offsets]
        body = {"partition": partition, "outcomes": entries, "token": f"{EPOCH}-{partition}-{max(offsets) + 1}"}
        return self._send(200, orjson.dumps(body), {"Content-Type": "application/json"})

    def _page(self, query):
        node = self.server
        prefix, limit = query.get("prefix", [""])[0].encode(), int(query["limit"][0])
        keys = sorted((k for k in node.rows if k.startswith(prefix)), reverse="reverse" in query)
        begin = int(query.get("cursor", ["0"])[0])
        page = keys[begin : begin + min(limit, node.bound)]
        more = begin + len(page) < len(keys)
        return self._list(
            {"rows": [self._result(key) for key in page], "cursor": str(begin + len(page)) if more else None}
        )

    def _result(self, key):
        return {
            "key": key,
            "found": True,
            "value": self.server.rows[key],
            "version": 7,
            "partition": partition_of(key, PARTITIONS),
        }

    def _cell(self, key):
        return ["f", b"q", 7, 1, self.server.rows[key]]

    def _list(self, body):
        assert self.headers["Accept"].endswith(", application/msgpack;q=0.9")
        if "versions=" in self.path:
            self._wide_list(body)
            return
        self._send(
            200,
            msgpack.packb({**body, "token": f"{EPOCH}-0-100", "positions": {}}),
            {"Content-Type": "application/msgpack", "LS-Token": f"{EPOCH}-0-100"},
        )

    def _wide_list(self, body):
        """The list in columns, of rows that have one cell each."""
        rows = body.pop("rows") if "rows" in body else body.pop("results")
        columns = {
            "key": [row["key"] for row in rows], "version": [row.get("version") for row in rows],
            "partition": [row.get("partition", 0) for row in rows],
            "cells": [[self._cell(row["key"])] if row.get("found") else None for row in rows],
        }  # fmt: skip
        packed = msgpack.packb({**body, "columns": columns, "token": f"{EPOCH}-0-100", "positions": {}})
        self._send(200, packed, {"Content-Type": "application/vnd.logstore.columns+msgpack"})

    def _problem(self, status, word, headers=None, **more):
        problem = orjson.dumps(
            {"type": f"urn:logstore:{word}", "title": word, "status": status, "detail": f"because of {word}", **more}
        )
        self._send(status, problem, {"Content-Type": "application/problem+json", **(headers or {})})

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running_node() -> Iterator[HttpNode]:
    with HttpNode() as node:
        yield node
        node.shutdown()
