"""Commands of `logstore batch`; each file is loaded when its command is used."""
