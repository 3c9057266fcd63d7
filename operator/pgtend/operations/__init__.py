"""PostgresOperation: one task, once, because somebody asked. Admission, journal, and the run until its last word."""
