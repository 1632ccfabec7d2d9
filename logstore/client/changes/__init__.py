"""Change feed of a table, as a program takes it: events by long polls that go on behind the last one."""
