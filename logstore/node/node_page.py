"""Pages of a node that its other processes ask for, each on a connection of its own: any of its readers may answer."""

import functools
import ssl

import httpx


def ask(url: str, timeout_s: float) -> httpx.Response:
    """A page's answer, whatever its status. Raises httpx.HTTPError when none comes."""
    return httpx.get(url, timeout=timeout_s, trust_env=False, verify=_authorities())


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Certificate authorities, read once: that takes as long as a hundred questions, and pages are asked for often."""
    return httpx.create_ssl_context(trust_env=False)
