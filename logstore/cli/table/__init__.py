"""Commands about tables, `logstore table`: definitions, promotion, repair."""
