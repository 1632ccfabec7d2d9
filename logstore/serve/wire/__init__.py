"""Wire: HTTP requests, responses, media types and problem documents."""
