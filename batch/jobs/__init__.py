"""Jobs: the driver's side, in numbered steps."""
