#!/bin/sh
# Installs the Debian packages that the tests and the demo need and this machine lacks, or prints the one line that does.
set -eu

say() { echo "setup: $*" >&2; }
PATH=$PATH:/usr/sbin:/sbin

missing=
# need PACKAGE FILE...: the package is there if one of the files is: a command, or a path that may hold a wildcard.
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

need build-essential cc
need ca-certificates /etc/ssl/certs/ca-certificates.crt
need curl curl
need iproute2 ip
need mariadb-server mariadbd
need mount mount
need nftables nft
need patroni patroni
need postgresql '/usr/lib/postgresql/*/bin/postgres'
need prometheus promtool
need python3-etcd /usr/lib/python3/dist-packages/etcd/__init__.py
need redis-server redis-server
need util-linux unshare

# Services that the packages bring must not start: the tests run their own. Debian asks this file first.
policy=/usr/sbin/policy-rc.d
install() {
	say "installing$missing"
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$policy"' EXIT
		trap 'exit 130' INT
		trap 'exit 143' TERM
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of names
	apt-get install -y -qq --no-install-recommends $missing >/dev/null
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
command -v go >/dev/null || { say "Go is not installed; see https://go.dev/doc/install"; exit 1; }
