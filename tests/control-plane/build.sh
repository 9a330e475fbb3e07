#!/bin/sh
# build.sh [control-plane|helm|gitops|all]: builds a Kubernetes control plane once, into a cache
# outside target/. `all`, the default, also builds the stand-ins for MongoDB and for a cluster's
# DNS, and the daemon's previous version; `helm` builds Helm, and `gitops` builds Helm and the
# engines of Flux and Argo CD. Prints the folders as NAME=VALUE lines. K8S=1.33 builds that
# Kubernetes beside today's.
set -eu
what=${1:-all}
here=$(cd "$(dirname "$0")" && pwd)
stand_in_sources=$(cd "$here/../stand-ins" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints
kubernetes="kube-apiserver kube-controller-manager kube-proxy kubectl"

say() { echo "control-plane: $*" >&2; }
fail() { say "$*"; exit 1; }
key() { cat "$@" | sha256sum | cut -c1-12; }

# version_in MODULE_DIR: the Kubernetes that a go.mod declares.
version_in() {
	sed -n 's|.*k8s.io/kubernetes v\([0-9.]*\)\( //.*\)*$|\1|p' "$1/go.mod" | head -n 1
}

# Each Kubernetes but today's has a folder of its own here, named after it.
modules=$here
version=$(version_in "$modules")
if [ -n "${K8S:-}" ] && [ "$K8S" != "${version%.*}" ]; then
	modules=$here/$K8S
	others=$(cd "$here" && for other in */go.mod; do printf ' or %s' "${other%/go.mod}"; done)
	[ -f "$modules/go.mod" ] ||
		fail "there is no Kubernetes $K8S here; K8S may be ${version%.*}$others"
	[ -z "${KUBEBUILDER_ASSETS:-}" ] ||
		fail "both K8S and KUBEBUILDER_ASSETS are set, and each names a control plane; unset one"
	version=$(version_in "$modules")
fi
minor=$(echo "$version" | cut -d. -f2)

need_go() {
	command -v go >/dev/null ||
		fail "Go is not installed; see https://go.dev/doc/install. (KUBEBUILDER_ASSETS may name a" \
			"folder with a built control plane; then only the stand-ins, for the tests, need Go.)"
	# Versions before 1.21 neither read our go.mod nor fetch the toolchain that it asks for.
	case $(go env GOVERSION) in
		go1.[0-9] | go1.[0-9].* | go1.1[0-9] | go1.1[0-9].* | go1.20 | go1.20.*)
			fail "$(go env GOVERSION) is too old; 1.21 or later fetches the version it needs by" \
				"itself; see https://go.dev/doc/install" ;;
	esac
}

count() { grep -c "$@" || true; }

# watch WHAT PID LOG: waits for a job and shows its progress, each second on a terminal and every
# 20 s elsewhere.
watch() {
	started=$(date +%s)
	while kill -0 "$2" 2>/dev/null; do
		sleep 1
		seconds=$(($(date +%s) - started))
		# A line without a space is a package that was compiled. The modules are fetched before.
		modules_fetched=$(count '^go: downloading' "$3")
		progress="$1: $modules_fetched modules, $(count '^[^ ]*$' "$3") packages, $seconds s"
		if [ -t 2 ]; then
			printf '\rcontrol-plane: %s ' "$progress" >&2
		elif [ $((seconds % 20)) -eq 19 ]; then
			say "$progress"
		fi
	done
	[ ! -t 2 ] || printf '\r\033[K' >&2
}

# build MODULE_DIR OUTPUT PACKAGE: builds one binary. The output is renamed into place, so that an
# interrupted build is never taken for a whole one.
build() {
	[ ! -x "$2" ] || return 0
	need_go
	name=$(basename "$2")
	log=$2.log
	say "building $name ..."
	(cd "$1" && exec go build -v -trimpath -ldflags "-s -w \
		-X k8s.io/component-base/version.gitVersion=v$version \
		-X k8s.io/component-base/version.gitMajor=1 \
		-X k8s.io/component-base/version.gitMinor=$minor" -o "$2.part" "$3") >"$log" 2>&1 &
	job=$!
	watch "$name" "$job" "$log"
	if ! wait "$job"; then
		# What is no progress is why it failed.
		grep -v -e '^[^ ]*$' -e '^go: downloading' "$log" >&2 || tail -n 5 "$log" >&2
		fail "building $name failed"
	fi
	job=
	rm -f "$log"
	mv "$2.part" "$2"
	say "built $name in $seconds s"
}

# MongoDB's shell comes from npm, by a lock file that has the digest of each package. After a change
# of package.json, run
#   npm install --package-lock-only --omit=optional --omit-lockfile-registry-resolved
# Without npm the shell is left out, and the test that would use it says so.
install_mongosh() {
	[ ! -e "$1/node_modules" ] && command -v npm >/dev/null || return 0
	say "installing mongosh ..."
	part=$1/mongosh.part
	rm -rf "$part"
	mkdir -p "$part"
	cp "$stand_in_sources/mongosh/package.json" "$stand_in_sources/mongosh/package-lock.json" "$part/"
	if npm ci --prefix "$part" --omit=optional --no-audit --no-fund --fetch-retries=1 \
		--loglevel=error >"$part/log" 2>&1; then
		mv "$part/node_modules" "$1/node_modules"
	else
		say "npm could not install mongosh; going on without it: $(tail -n 1 "$part/log")"
	fi
	rm -rf "$part"
}

case $what in
	control-plane | helm | gitops | all) ;;
	*) fail "there is nothing called $what; say control-plane, helm, gitops or all" ;;
esac

job=
trap '[ -z "$job" ] || kill "$job" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
	assets=$KUBEBUILDER_ASSETS
	for tool in etcd $kubernetes; do
		[ -x "$assets/$tool" ] ||
			fail "KUBEBUILDER_ASSETS is set to $assets, which has no $tool; add it, or unset" \
				"KUBEBUILDER_ASSETS to have all of them built"
	done
else
	assets=$cache/control-plane-$version-$(key "$modules/go.sum")
fi
# The folder is named even where nothing is built, so that an error names the file that is missing.
stand_ins=$cache/stand-ins-$(cd "$stand_in_sources" &&
	key coredns/go.sum coredns/main.go ferretdb/go.sum ferretdb/main.go mongosh/package-lock.json)
gitops=$cache/gitops-$(cd "$stand_in_sources/gitops" && key go.sum ./*.go)
mkdir -p "$assets" "$stand_ins" "$gitops"

# once NAME: test programs that start at the same time build once.
once() {
	exec 9>"$cache/$1.lock"
	flock -n 9 || { say "another build runs; waiting for it"; flock 9; }
}

# One Kubernetes need not wait for another.
once "kubernetes-$version"
build "$modules" "$assets/etcd" go.etcd.io/etcd/server/v3
for tool in $kubernetes; do
	build "$modules" "$assets/$tool" "k8s.io/kubernetes/cmd/$tool"
done
if [ "$what" = all ]; then
	once stand-ins
	for stand_in in coredns ferretdb; do
		build "$stand_in_sources/$stand_in" "$stand_ins/$stand_in" .
	done
	install_mongosh "$stand_ins"
	previous=$("$here/../upgrade/build.sh")
fi

if [ "$what" = gitops ] || [ "$what" = helm ]; then
	once gitops
	[ "$what" = helm ] || build "$stand_in_sources/gitops" "$gitops/gitops" .
	build "$stand_in_sources/gitops" "$gitops/helm" helm.sh/helm/v4/cmd/helm
fi

echo "KUBEBUILDER_ASSETS=$assets"
echo "EXTERNAL_ENDPOINTS_GITOPS=$gitops"
echo "EXTERNAL_ENDPOINTS_STAND_INS=$stand_ins"
echo "EXTERNAL_ENDPOINTS_PREVIOUS=${previous:-}"
