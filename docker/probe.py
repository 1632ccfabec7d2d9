#!/usr/bin/env python3
"""What a container's health check runs: exit status 0 when the reader of this container answers PATH with 200."""

import http.client
import os
import sys
from contextlib import closing

port = int(os.environ.get("LOGSTORE_HTTP", "127.0.0.1:8480").rpartition(":")[2])
with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=3)) as connection:
    try:
        connection.request("GET", sys.argv[1])
        answer = connection.getresponse()
        sys.exit(None if answer.status == 200 else f"{answer.status} {answer.read().decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"port {port}: {error}")
