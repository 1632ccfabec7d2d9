"""Commands of `logstore`; each file is loaded when its command is used."""
