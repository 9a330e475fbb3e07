#!/bin/sh
# Builds etcd, the Kubernetes binaries and the MongoDB stand-in once, into a cache outside target/, and prints where they are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n "s/.*k8s.io\/kubernetes v\([0-9.]*\)\( \/\/.*\)*$/\1/p" "$here/go.mod" | head -n 1)
minor=$(echo "$version" | cut -d. -f2)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints

say() { echo "control-plane: $*" >&2; }
command -v go >/dev/null || { say "Go is not installed; see https://go.dev/doc/install, or set KUBEBUILDER_ASSETS"; exit 1; }

key() { cat "$@" | sha256sum | cut -c1-12; }

# build MODULE_DIR OUTPUT PACKAGE: one binary, atomically, so that an interrupted build is never taken for a whole one.
build() {
	[ -x "$2" ] && return
	started=$(date +%s)
	say "building $(basename "$2") ..."
	(cd "$1" && go build -trimpath -ldflags "-s -w \
		-X k8s.io/component-base/version.gitVersion=v$version \
		-X k8s.io/component-base/version.gitMajor=1 \
		-X k8s.io/component-base/version.gitMinor=$minor" -o "$2.part" "$3") || exit 1
	mv "$2.part" "$2"
	say "built $(basename "$2") in $(($(date +%s) - started)) s"
}

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
	assets=$KUBEBUILDER_ASSETS
	for tool in etcd kube-apiserver kube-controller-manager kube-proxy kubectl; do
		[ -x "$assets/$tool" ] || { say "KUBEBUILDER_ASSETS is set to $assets, which has no $tool; add it, or unset KUBEBUILDER_ASSETS to have all of them built"; exit 1; }
	done
else
	assets=$cache/control-plane-$version-$(key "$here/go.sum")
	mkdir -p "$assets"
	build "$here" "$assets/etcd" go.etcd.io/etcd/server/v3
	for tool in kube-apiserver kube-controller-manager kube-proxy kubectl; do
		build "$here" "$assets/$tool" "k8s.io/kubernetes/cmd/$tool"
	done
fi
echo "$assets"
