"""Reading a log: its tail for ever, exact ranges of it, and what is known of offsets that it does not hand over."""
