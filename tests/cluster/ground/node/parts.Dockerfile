# The images that a node holds from its first moment, as small as they can be: static programs, and nft with its
# libraries for the two that write packet filter rules.
ARG BASE
FROM ${BASE} AS debian
# What kind's own base image installs (images/base/Dockerfile of the kind module).
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends \
      systemd systemd-sysv dbus conntrack iptables nftables iproute2 ethtool kmod mount libseccomp2 ebtables socat \
      ca-certificates curl jq procps util-linux containerd runc containernetworking-plugins \
 && rm -rf /var/lib/apt/lists/*

# nft prints protocols by number where it finds no names for them; kube-proxy then knows none of its own entries again,
# and takes every service of the time out at its full sync, an hour after its start.
FROM debian AS nft
RUN mkdir -p /out \
 && cp --parents -L /usr/sbin/nft $(ldd /usr/sbin/nft | grep -o '/[^ ]*') /out \
 && mkdir -p /out/tmp /out/etc && printf 'hosts: files dns\nprotocols: files\n' >/out/etc/nsswitch.conf \
 && printf 'tcp 6 TCP\nudp 17 UDP\nsctp 132 SCTP\n' >/out/etc/protocols

FROM scratch AS kube
COPY --from=nft /out/ /
COPY bin/kube/ /usr/local/bin/
ENV PATH=/usr/local/bin:/usr/sbin

FROM scratch AS agent
COPY --from=nft /out/ /
COPY bin/agent /agent
ENV PATH=/usr/sbin
ENTRYPOINT ["/agent"]

FROM scratch AS coredns
COPY bin/coredns /coredns
ENTRYPOINT ["/coredns"]

FROM scratch AS pause
COPY bin/pause /pause
ENTRYPOINT ["/pause"]
