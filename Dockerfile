# Two images out of one file: `operator`, and `tools` for the pods of backups, which adds the programs of one PostgreSQL
# major. BASE is any Debian with Python 3.11. The build context is laid out by tests/cluster/ground (`ground.py images`):
# this checkout's operator/pgtend and requirements/operator.txt, and in wheels/ what that lock file names, so that no
# package index is asked during a build. Code comes last: a change of code rebuilds in seconds.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS runtime
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
 && useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pgtend
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LANG=C.UTF-8
WORKDIR /app

FROM runtime AS dependencies
RUN apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv
COPY requirements/operator.txt /build/
COPY wheels/ /build/wheels/
RUN python3 -m venv /opt/venv \
 && pip install --no-cache-dir --disable-pip-version-check --no-index --find-links=/build/wheels --require-hashes \
      -r /build/operator.txt \
 && pip uninstall -y -q setuptools pip
# The libpq of psycopg's wheel, with the OpenSSL that belongs to it, under the names that PostgreSQL's programs look for.
RUN cp -r /opt/venv/lib/python3.11/site-packages/psycopg_binary.libs /opt/libpq && cd /opt/libpq \
 && ln -s libpq-*.so.5.* libpq.so.5 && ln -s libssl-*.so.3 libssl.so.3 && ln -s libcrypto-*.so.3 libcrypto.so.3

# Compiled without time stamps: the bytecode is valid whatever the builder does to the files' times.
FROM dependencies AS code
COPY operator/pgtend/ /app/pgtend/
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM runtime AS operator
COPY --from=dependencies /opt/venv/ /opt/venv/
COPY --from=code /app/ /app/
USER 10001:10001
ENTRYPOINT ["python3", "-m", "pgtend"]

# The server's programs are for the proof that a backup restores. Debian's package would make a cluster of its own at
# installation: createcluster.conf forbids it. The just-in-time compiler is a third of the image and of no use here.
# libpq before 16 ignores PGREQUIREAUTH and would send a password in clear text to a server that asks for it: the
# clients of every major are made to load the newer one of the wheel. OpenSSL comes from there too, because two of them
# in one process corrupt its memory.
FROM runtime AS programs
ARG PG_MAJOR=15
RUN mkdir -p /etc/postgresql-common \
 && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && apt-get update -q \
 && apt-get install -y -q --no-install-recommends \
      postgresql-${PG_MAJOR} postgresql-client-${PG_MAJOR} age zstd patchelf \
 && for program in /usr/lib/postgresql/${PG_MAJOR}/bin/*; do \
      if patchelf --print-needed "$program" 2>/dev/null | grep -q '^libpq.so.5$'; then \
        patchelf --set-rpath /opt/libpq "$program"; \
      fi; \
    done \
 && apt-get purge -y -q --auto-remove patchelf \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* \
      /usr/lib/*/libLLVM* /usr/lib/postgresql/*/lib/llvmjit* /usr/lib/postgresql/*/lib/bitcode
ENV PGTEND_PG_MAJOR=${PG_MAJOR} \
    PATH=/usr/lib/postgresql/${PG_MAJOR}/bin:/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

FROM programs AS tools
COPY --from=dependencies /opt/libpq/ /opt/libpq/
RUN for client in psql pg_dump pg_dumpall pg_restore pg_basebackup pg_receivewal; do \
      ldd "$(command -v $client)" | grep -q 'libpq.so.5 => /opt/libpq/' || exit 1; \
      ! ldd "$(command -v $client)" | grep -q '=> /\(usr/\)\?lib.*/lib\(ssl\|crypto\)' || exit 1; \
    done \
 && PGREQUIREAUTH=nonsense psql -h 127.0.0.1 2>&1 | grep -q 'invalid require_auth'
COPY --from=dependencies /opt/venv/ /opt/venv/
COPY --from=code /app/ /app/
USER 10001:10001
ENTRYPOINT ["python3", "-m", "pgtend"]
