"""DatabaseUser: observes roles and privileges, plans the difference, keeps the password in a Secret, carries it out."""
