#!/usr/bin/env python3
"""Make the demo's passwords, certificates and keys at random and put them into the cluster as Secrets.

Nothing secret is in Git, on a command line or on the screen. A Secret that exists is left alone, so a second run
changes nothing. Needs kubectl (with its context set) and openssl. Prints the age recipient that backups are encrypted
for.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

NAMESPACE = "databases"
BUCKET = "pgtend-demo"
ROLES = ("monitor", "maintenance", "users", "backup", "replication", "pooler")
SERVERS = ("orders-a", "orders-b", "orders-pool", "s3")
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

_OBJECTS, _BUCKET = f"arn:aws:s3:::{BUCKET}/*", f"arn:aws:s3:::{BUCKET}"
# Who writes backups can neither read nor delete them; who reads changes nothing; retention puts a tombstone over a
# manifest before it deletes.
S3_RIGHTS = {
    "write": {
        _OBJECTS: ["PutObject", "AbortMultipartUpload", "ListMultipartUploadParts"],
        _BUCKET: ["ListBucket", "ListBucketMultipartUploads", "GetBucketLocation"],
    },
    "read": {
        _OBJECTS: ["GetObject"],
        _BUCKET: [
            *("ListBucket", "ListBucketMultipartUploads", "GetBucketLocation", "GetBucketVersioning"),
            *("GetLifecycleConfiguration", "GetBucketObjectLockConfiguration"),
        ],
    },
    "delete": {
        _OBJECTS: ["GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"],
        _BUCKET: ["ListBucket", "ListBucketMultipartUploads", "GetBucketLocation"],
    },
}


def main() -> int:
    have = existing()
    made: list[dict[str, object]] = []
    for role in ROLES:
        if f"orders-{role}" not in have:
            made.append(secret(f"orders-{role}", {"password": secrets.token_urlsafe(24)}))
    if not have >= {"orders-ca", "s3-ca", *(f"{server}-tls" for server in SERVERS)}:
        made += certificates()
    if not have >= {"s3-config", "s3-admin", *(f"s3-{right}" for right in S3_RIGHTS)}:
        made += s3_identities()
    if "backup-identity" not in have:
        made.append(secret("backup-identity", age_identity()))
    if made:
        kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": made}))
    print(f"{len(made)} Secrets made in {NAMESPACE}", file=sys.stderr)
    path = "jsonpath={.data.recipient}"
    print(base64.b64decode(kubectl("get", "secret", "backup-identity", "-o", path)).decode())
    return 0


def kubectl(*arguments: str, stdin: str | None = None) -> str:
    """What kubectl prints; ends the program with kubectl's own words when it fails."""
    command = ["kubectl", "-n", NAMESPACE, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"kubectl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def existing() -> set[str]:
    return {line.removeprefix("secret/") for line in kubectl("get", "secrets", "-o", "name").split()}


def secret(name: str, values: dict[str, str], kind: str = "Opaque") -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": values,
    }


def certificates() -> list[dict[str, object]]:
    """One authority, whose key is thrown away, and a certificate per server for all its names in the cluster."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)

        def openssl(*arguments: str) -> None:
            subprocess.run(["openssl", *arguments], cwd=work, check=True, capture_output=True)

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "365", "-subj", "/CN=pgtend demo")
        authority = (work / "ca.crt").read_text()
        made = [secret(name, {"ca.crt": authority}) for name in ("orders-ca", "s3-ca")]
        for server in SERVERS:
            host = f"{server}.{NAMESPACE}"
            names = [server, host, f"{host}.svc", f"{host}.svc.cluster.local", "localhost"]
            alternatives = ",".join([*(f"DNS:{name}" for name in names), "IP:127.0.0.1"])
            openssl("req", *key, "-keyout", "tls.key", "-out", "tls.csr", "-subj", f"/CN={host}.svc")
            (work / "names").write_text(f"subjectAltName={alternatives}\nextendedKeyUsage=serverAuth\n")
            sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "365", "-extfile", "names")
            openssl("x509", "-req", "-in", "tls.csr", "-out", "tls.crt", *sign)
            pair = {name: (work / name).read_text() for name in ("tls.crt", "tls.key", "ca.crt")}
            made.append(secret(f"{server}-tls", pair, "kubernetes.io/tls"))
        return made


def s3_identities() -> list[dict[str, object]]:
    """A key pair for the administrator and one per right, and the server's configuration that names them all."""
    made, identities, policies = [], [], []
    for name in ("admin", *S3_RIGHTS):
        pair = {"id": secrets.token_hex(10).upper(), "secret": secrets.token_urlsafe(30)}
        made.append(secret(f"s3-{name}", pair))
        identity = {"name": name, "credentials": [{"accessKey": pair["id"], "secretKey": pair["secret"]}]}
        if name == "admin":
            identities.append({**identity, "actions": ["Admin"]})
            continue
        identities.append({**identity, "policyNames": [name]})
        statements = [
            {"Effect": "Allow", "Action": [f"s3:{action}" for action in actions], "Resource": [resource]}
            for resource, actions in S3_RIGHTS[name].items()
        ]
        policies.append({"name": name, "content": json.dumps({"Version": "2012-10-17", "Statement": statements})})
    made.append(secret("s3-config", {"s3.json": json.dumps({"identities": identities, "policies": policies})}))
    return made


def age_identity() -> dict[str, str]:
    """A key pair as age-keygen makes it: X25519, both halves in bech32."""
    pem = subprocess.run(["openssl", "genpkey", "-algorithm", "X25519"], check=True, capture_output=True).stdout
    raw = []
    for half in ((), ("-pubout",)):
        command = ["openssl", "pkey", *half, "-outform", "DER"]
        raw.append(subprocess.run(command, input=pem, check=True, capture_output=True).stdout[-32:])
    return {"identity": bech32("age-secret-key-", raw[0]).upper(), "recipient": bech32("age", raw[1])}


def bech32(prefix: str, data: bytes) -> str:
    """BIP 173, without its limit of 90 characters, as age uses it."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    words = [int(bits[at : at + 5], 2) for at in range(0, len(bits), 5)]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    total = 1
    for value in [*expanded, *words, *[0] * 6]:
        top = total >> 25
        total = (total & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            total ^= generator if top >> bit & 1 else 0
    checksum = [(total ^ 1) >> 5 * (5 - at) & 31 for at in range(6)]
    return prefix + "1" + "".join(BECH32[word] for word in [*words, *checksum])


if __name__ == "__main__":
    sys.exit(main())
