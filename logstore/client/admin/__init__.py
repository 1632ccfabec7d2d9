"""Administration: table definitions are made, changed and dropped, and everybody who serves them is waited for."""
