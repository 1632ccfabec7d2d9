"""Conversation: what a reader asks for a read, whom, and how often, without the socket and once for every driver.

steps           what a read asks of its driver: a request, a wait, a page ahead
requests        paths, headers and bodies
owners          who is asked for a key
exchange        a request until it is answered, by the owner, within the deadline
conversation    every kind of read
scan            page after page
"""
