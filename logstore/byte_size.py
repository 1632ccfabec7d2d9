"""Byte sizes as people write them: 8GiB, 512 MB, 1000000."""

import re

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE = re.compile(r"([0-9]{1,18}) ?(?:([kmgtp]?)(i?)b?)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes: a whole number, alone or with kB, MB, GB, TB (of 1,000) or KiB, MiB, GiB, TiB (of 1,024).

    Raises ValueError.
    """
    found = _SIZE.fullmatch(text.strip())
    number, prefix, binary = found.groups(default="") if found else ("", "", "")
    if not found or (binary and not prefix):
        raise ValueError(f"wants a size such as 8GiB, 512MiB or 1000000, not {text[:80]!r}")
    unit = 1_024 if binary else 1_000
    return int(int(number) * unit ** _POWERS[prefix.lower()])
