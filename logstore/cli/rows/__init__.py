"""Commands about rows: put, get, delete and scan; load from files."""
