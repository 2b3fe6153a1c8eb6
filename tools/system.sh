#!/usr/bin/env bash
# Installs the Debian packages that a target needs and that are missing.
#   kubectl   kubernetes-client, where there is no kubectl
#   test      the tools that the tests run beside ours; Debian's kubectl 1.20 is unpacked beside a newer one
set -eu
export DEBIAN_FRONTEND=noninteractive
cd "$(dirname "$0")/.."
updated=
install() {
  if [ "$(id -u)" != 0 ]; then
    echo "error: need root to install: $*" >&2
    echo "hint: sudo apt-get install $*" >&2
    exit 1
  fi
  [ -n "$updated" ] || { apt-get update -qq; updated=1; }
  echo "installing $*" >&2
  apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
command -v kubectl >/dev/null || install kubernetes-client
[ "$1" = test ] || exit 0

missing=()
command -v etcd >/dev/null || missing+=(etcd-server)
command -v curl >/dev/null || missing+=(curl)
command -v openssl >/dev/null || missing+=(openssl)
command -v ssh >/dev/null || missing+=(openssh-client)
[ -x /usr/sbin/sshd ] || missing+=(openssh-server)
command -v bwrap >/dev/null || missing+=(bubblewrap) # pods that run as processes
command -v ip >/dev/null || [ -x /sbin/ip ] || missing+=(iproute2)
[ ${#missing[@]} = 0 ] || install "${missing[@]}"

# The old kubectl lies beside: build/kubectl-1.20/usr/bin/kubectl
if [ ! -x build/kubectl-1.20/usr/bin/kubectl ]; then
  mkdir -p build/kubectl-1.20
  if kubectl version --client 2>/dev/null | grep -q 'v1\.20'; then
    mkdir -p build/kubectl-1.20/usr/bin
    ln -sf "$(command -v kubectl)" build/kubectl-1.20/usr/bin/kubectl
  else
    [ -n "$updated" ] || { apt-get update -qq; updated=1; }
    (cd build && apt-get download -qq kubernetes-client && dpkg -x kubernetes-client_*.deb kubectl-1.20 && rm -f kubernetes-client_*.deb)
  fi
fi
