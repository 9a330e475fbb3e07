#!/bin/sh
# setup.sh [lint|demo|monitoring|browser|bench|test|image|release]: installs the Debian packages
# that are missing for this purpose, or prints the line that installs them. Without an argument it
# does so for all purposes.
set -eu

say() { echo "setup: $*" >&2; }
PATH=$PATH:/usr/sbin:/sbin
purpose=${1:-all}

missing=
# need PACKAGE FILE...: adds the package to the missing ones unless one of the files exists. A file
# is a command, or a path that may hold a wildcard.
need() {
	package=$1
	shift
	for file in "$@"; do
		case $file in
			/*) for path in $file; do [ ! -e "$path" ] || return 0; done ;;
			*) ! command -v "$file" >/dev/null || return 0 ;;
		esac
	done
	missing="$missing $package"
}

for_lint() {
	need build-essential cc
	need ca-certificates /etc/ssl/certs/ca-certificates.crt
}

for_demo() {
	for_lint
	need iproute2 ip
	need mount mount
	need nftables nft
	need util-linux unshare
}

for_monitoring() {
	for_demo
	need prometheus prometheus
	need redis-server redis-server
}

for_bench() {
	for_demo
	need haproxy haproxy
}

for_browser() {
	for_lint
	need chromium-headless-shell chromium-headless-shell chromium google-chrome
	need iproute2 ip
	need npm npm
	need util-linux unshare
}

for_test() {
	for_browser
	for_demo
	need galera-4 /usr/lib/galera/libgalera_smm.so
	need mariadb-server mariadbd
	# It fetches servers that Debian has not, such as MySQL's.
	need maven mvn
	need patroni patroni
	need pgbouncer pgbouncer
	need postgresql '/usr/lib/postgresql/*/bin/postgres'
	need prometheus promtool
	need python3-pip pip3
	need python3-etcd /usr/lib/python3/dist-packages/etcd/__init__.py
	need redis-server redis-server
}

for_image() {
	for_lint
	need binutils readelf
	need buildah buildah
}

for_release() {
	for_image
	for_demo
	need gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc
	need libc6-dev-arm64-cross /usr/aarch64-linux-gnu/lib/libc.a
	need qemu-user-static qemu-aarch64-static
}

for_all() {
	for_test
	for_release
	need haproxy haproxy
}

case $purpose in
	lint | demo | monitoring | browser | bench | test | image | release | all) "for_$purpose" ;;
	*) say "$purpose is none of the purposes that this file lists"; exit 1 ;;
esac

# Lists the services that start at boot. A removed package may leave a link that leads nowhere; it
# works again once the package is back.
at_boot() {
	for link in /etc/systemd/system/*.wants/*.service; do
		[ ! -e "$link" ] || basename "$link"
	done | sort -u
}

# Services that the packages bring must not start: the tests run their own.
install() {
	say "installing$missing (whatever service they bring is kept from starting, now and at boot)"
	# Debian asks this file before it starts one. An existing file is put back afterwards.
	policy=/usr/sbin/policy-rc.d
	kept=$(mktemp -d)
	trap 'rm -f "$policy"; [ ! -e "$kept/policy" ] || mv "$kept/policy" "$policy"; rm -rf "$kept"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	[ ! -e "$policy" ] || mv "$policy" "$kept/policy"
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	at_boot >"$kept/before"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of names
	if ! apt-get install -y -qq --no-install-recommends $missing >"$kept/log" 2>&1; then
		cat "$kept/log" >&2
		exit 1
	fi
	at_boot >"$kept/after"
	for service in $(comm -13 "$kept/before" "$kept/after"); do
		say "$service does not start at boot; for that: systemctl enable $service"
		systemctl --quiet disable "$service" 2>/dev/null || say "$service could not be disabled"
	done
}

if [ -n "$missing" ]; then
	command -v apt-get >/dev/null || { say "missing, by their Debian names:$missing"; exit 1; }
	if [ "$(id -u)" -eq 0 ]; then
		install
	else
		say "some packages are missing; install them with this line, then go on:"
		echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
		exit 1
	fi
fi

command -v cargo >/dev/null || { say "Rust is not installed; see https://rustup.rs"; exit 1; }
# The build reports a Go that is too old. A missing Go is reported here, before minutes of building.
case $purpose in
	browser | image) go=no ;;
	demo | monitoring | bench) [ -n "${KUBEBUILDER_ASSETS:-}" ] && go=no || go=yes ;;
	*) go=yes ;;
esac
if [ "$go" = yes ]; then
	command -v go >/dev/null || { say "Go is not installed; see https://go.dev/doc/install"; exit 1; }
fi
