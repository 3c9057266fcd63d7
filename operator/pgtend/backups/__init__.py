"""Backups: what lies in the bucket and what it proves (`catalog`), what may go (`retention`), and `jobs`, what runs in
pods. A backup exists when its manifest does; it counts when somebody else has read it back."""
