"""Reading: the conversation with the read API, its two edges, and the rows and errors that come of it."""
