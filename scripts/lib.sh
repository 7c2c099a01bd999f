# Shared by all scripts here: `. "$(dirname "$0")/lib.sh"`. Changes to the repository's top, sets defaults, defines say and die.
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
unset PYTHONDONTWRITEBYTECODE # containers often set it; every test process would then compile all Python modules again

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
name=${SLUICE_NAME:-sluice}
image=${SLUICE_IMAGE:-sluice:$version}

say() { printf '\033[2m--\033[0m %s\n' "$*" >&2; }
die() { printf '%s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs Debian packages; fails without apt.
apt_install() {
  command -v apt-get >/dev/null || die "Packages missing: $*; install them (this host has no apt-get)."
  say "installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
