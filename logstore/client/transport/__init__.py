"""Transport: requests over HTTP/1.1 connections of the client's own, kept alive; blocking, and for asyncio.

`origin`, `request`, `answer` and `stack` are pure and shared; `sockets` and `protocol` are the thin edges.
"""
