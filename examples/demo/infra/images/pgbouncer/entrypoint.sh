#!/bin/bash
# Writes the list of the two roles that PgBouncer must know itself, then becomes PgBouncer: who looks up the others'
# verifiers in the server, and who reads the console. Every other login is the server's to judge.
# Folders: /config (pgbouncer.ini), /passwords (a file per role), /tls.
set -euo pipefail
umask 077
for role in pooler monitor; do
  name=pgtend_$role
  [ $role != pooler ] || name=pgbouncer
  printf '"%s" "%s"\n' "$name" "$(cat /passwords/$role)"
done >/tmp/userlist.txt
exec pgbouncer /config/pgbouncer.ini
