"""Storage URLs: which addresses archive and snapshots may lie at: every node goes where the store's definition says."""

from collections.abc import Collection
from urllib.parse import urlsplit

from logstore.model.errors import UsageError

SCHEMES = ("file", "s3", "gs", "abfs")
_NAMED_BEFORE_AT = frozenset({"abfs", "abfss"})  # abfs://CONTAINER@ACCOUNT/...: a name, no secret


def check_storage_url(url: object, schemes: Collection[str] = SCHEMES) -> str:
    """Return `url`; raises UsageError unless a node may go there."""
    wanted = "give --storage file:///DIRECTORY or s3://BUCKET/PREFIX"
    if not isinstance(url, str) or not url.isprintable() or len(url) > 2_048:
        raise UsageError(f"not a storage: {url!r:.120}; {wanted}")
    scheme, found, rest = url.partition("://")
    try:
        parts = urlsplit(url)
        secret = parts.password is not None or (parts.username is not None and scheme not in _NAMED_BEFORE_AT)
    except ValueError as error:
        raise UsageError(f"not a storage: {url[:120]!r}: {error}; {wanted}") from error
    if secret or (scheme != "file" and parts.query):
        raise UsageError(
            f"the storage {scheme}://... carries credentials, and everybody who reads the store's definition would "
            "have them; leave them to the environment of nodes and jobs"
        )
    if not found or not rest or (scheme == "file" and not rest.startswith("/")):
        raise UsageError(f"not a storage: {url[:120]!r}; {wanted}")
    if scheme not in schemes:
        raise UsageError(
            f"not a storage: {url[:120]!r}: its scheme is none of {', '.join(schemes)}; {wanted}, or name the scheme "
            "in the setting storage_schemes"
        )
    if ".." in rest.split("/"):
        raise UsageError(f"not a storage: {url[:120]!r} leads upwards; {wanted}")
    return url
