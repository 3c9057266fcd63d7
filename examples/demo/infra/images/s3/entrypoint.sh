#!/bin/bash
# Serves S3 over TLS on port 8333 and makes one bucket. All other ports of SeaweedFS stay on the loopback.
# Environment: BUCKET. Folders: /data (the volume), /config/s3.json (identities and their policies), /tls.
set -euo pipefail
ask() { echo "$1" | timeout 20 weed shell -master=127.0.0.1:9333 2>&1; }
make_bucket() {
  until ask s3.bucket.list | grep -q "^ *$BUCKET\b"; do
    ask "s3.bucket.create -name $BUCKET" >/tmp/bucket.log || true
    sleep 0.5
  done
  touch /tmp/ready
  echo "entrypoint: bucket $BUCKET is there"
}
rm -f /tmp/ready /tmp/*.sock # of a container before this one
make_bucket &
exec weed server -dir=/data -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3.ip.bind=0.0.0.0 \
  -master.volumeSizeLimitMB=256 -volume.max=40 -filer -s3 -s3.port=8333 \
  -s3.config=/config/s3.json -s3.cert.file=/tls/tls.crt -s3.key.file=/tls/tls.key
