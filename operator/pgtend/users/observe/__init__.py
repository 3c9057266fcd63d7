"""Reading roles and privileges from a server: the queries, and what becomes of their rows."""
