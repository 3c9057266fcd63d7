#!/bin/bash
# Makes the data directory at the first start, then becomes the server. Environment:
#   PRIMARY_HOST       set: a standby of that server; unset: a primary
#   REPLICATION_SLOT   the standby's slot on the primary
#   SETTINGS           more settings as name=value, blank between them
# Folders: /pgdata (the volume), /passwords (a file per role, read by /init.d/*.sql and for replication), /tls (tls.crt,
# tls.key, ca.crt; without them the server makes a certificate of its own), /init.d (SQL for a new primary).
set -euo pipefail
umask 077
export PGDATA=/pgdata/data
say() { echo "entrypoint: $*"; }

# ---- TLS is always on: a client that asks for it never falls back to clear text
if [ -e /tls/tls.crt ]; then
  certificate=/tls/tls.crt key=/tls/tls.key
else
  certificate=/pgdata/server.crt key=/pgdata/server.key
  [ -e $key ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj "/CN=$HOSTNAME" -addext "subjectAltName=DNS:$HOSTNAME,DNS:localhost,IP:127.0.0.1" \
    -keyout $key -out $certificate 2>/dev/null
fi

make_primary() {
  initdb --pgdata="$PGDATA.new" --username=postgres --auth=peer --encoding=UTF8 --locale=C.UTF-8 --data-checksums >/dev/null
  # Passwords are in these statements: nothing of them goes to the log.
  local quiet="-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic"
  pg_ctl --pgdata="$PGDATA.new" --wait --silent --log=/tmp/init.log \
    --options="-c listen_addresses='' $quiet" start
  local file
  for file in /init.d/*.sql; do
    [ -e "$file" ] || continue
    say "runs $file"
    psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres --file="$file" >/dev/null
  done
  pg_ctl --pgdata="$PGDATA.new" --wait --silent --mode=fast stop
}

make_standby() {
  local existing=--create-slot
  until pg_isready --quiet --host="$PRIMARY_HOST"; do say "waits for $PRIMARY_HOST"; sleep 1; done
  # A standby that is made again finds its slot on the primary.
  pg_basebackup --dbname="$(primary)" --pgdata="$PGDATA.new" --wal-method=stream --checkpoint=fast \
    --slot="$REPLICATION_SLOT" $existing 2>/tmp/first.log ||
    { rm -rf "$PGDATA.new"; pg_basebackup --dbname="$(primary)" --pgdata="$PGDATA.new" --wal-method=stream \
        --checkpoint=fast --slot="$REPLICATION_SLOT" || { cat /tmp/first.log; return 1; }; }
  touch "$PGDATA.new/standby.signal"
}

primary() {
  local verify="sslmode=require"
  [ ! -e /tls/ca.crt ] || verify="sslmode=verify-full sslrootcert=/tls/ca.crt"
  echo "host=$PRIMARY_HOST user=pgtend_replication application_name=$HOSTNAME passfile=/tmp/passfile $verify"
}

if [ -n "${PRIMARY_HOST:-}" ]; then
  echo "*:*:*:pgtend_replication:$(cat /passwords/replication)" >/tmp/passfile
fi
if [ ! -e "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.new" # of a start that was interrupted
  if [ -n "${PRIMARY_HOST:-}" ]; then make_standby; else make_primary; fi
  mv "$PGDATA.new" "$PGDATA"
  say "data directory made"
fi

# at every start but the first the volume's fsGroup has given the group rights that the server refuses
chmod 0700 "$PGDATA"

chmod 0700 "$PGDATA" # a volume that is mounted again may have been opened to its group

cat >/tmp/pg_hba.conf <<'H'
local   all         postgres            peer
hostssl all         all       all       scram-sha-256
hostssl replication all       all       scram-sha-256
H
options=(
  -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql -c hba_file=/tmp/pg_hba.conf
  -c ssl=on -c ssl_cert_file=$certificate -c ssl_key_file=$key -c ssl_min_protocol_version=TLSv1.2
  -c password_encryption=scram-sha-256 -c shared_preload_libraries=pg_stat_statements
  -c wal_level=replica -c hot_standby=on -c max_slot_wal_keep_size=512MB -c max_connections=100
  -c log_line_prefix='%m [%p] %q%u@%d %a '
)
[ -z "${PRIMARY_HOST:-}" ] || options+=(-c "primary_conninfo=$(primary)" -c "primary_slot_name=$REPLICATION_SLOT")
for setting in ${SETTINGS:-}; do options+=(-c "$setting"); done
exec postgres "${options[@]}"
