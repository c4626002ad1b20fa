# What the scripts share: where the repository is, how to talk to the person, which Swift builds it and how, and how
# root hands back the files it made. Sourced by the scripts beside this folder; never run by itself.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
required_swift=6.3
# Where everything is built; relative to the repository.
scratch=${PILOT_TUN_SCRATCH:-.build}

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' cyan=$'\e[36m' plain=$'\e[0m'
else
  bold='' dim='' red='' green='' cyan='' plain=''
fi

say() { printf '%s\n' "$*"; }
# Headline of a part of the work, with the time since the script began.
step() { printf '%s==>%s %s%s%s %s(after %d:%02d)%s\n' "$cyan" "$plain" "$bold" "$*" "$plain" "$dim" $((SECONDS / 60)) $((SECONDS % 60)) "$plain"; }

# fail MESSAGE [HINT]
fail() {
  printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
  [[ -n ${2:-} ]] && printf 'hint:  %s\n' "$2" >&2
  exit 1
}

need_root() {
  [[ $EUID -eq 0 ]] || fail "$1 needs root" "run: sudo $1"
}

# The home of the person who typed sudo: toolchains of swiftly and swiftenv live there.
caller_home() {
  if [[ -n ${SUDO_USER:-} ]]; then
    getent passwd "$SUDO_USER" | cut -d: -f6
  else
    printf '%s\n' "${HOME:-}"
  fi
}

# swift_is_enough PATH: is this a Swift of at least $required_swift?
swift_is_enough() {
  local version
  version=$("$1" --version 2>/dev/null | sed -n 's/.*Swift version \([0-9][0-9.]*\).*/\1/p' | head -n 1)
  [[ -n $version ]] && printf '%s\n%s\n' "$required_swift" "$version" | sort -V -C
}

# Puts a Swift that is new enough at the front of PATH, or says where to get one. sudo resets PATH, so the usual
# places are searched as well.
find_swift() {
  local home candidate
  home=$(caller_home)
  for candidate in \
    "$(command -v swift || true)" \
    /opt/*/usr/bin/swift /opt/*/bin/swift /usr/local/swift*/usr/bin/swift /usr/share/swift*/usr/bin/swift \
    "$home"/.local/share/swiftly/toolchains/*/usr/bin/swift "$home"/.swiftly/toolchains/*/usr/bin/swift \
    "$home"/.local/share/swiftly/bin/swift "$home"/swift*/usr/bin/swift "$home"/.swiftenv/shims/swift; do
    [[ -n $candidate && -x $candidate ]] || continue
    if swift_is_enough "$candidate"; then
      PATH="$(dirname "$candidate"):$PATH"
      export PATH
      return 0
    fi
  done
  fail "Swift $required_swift or newer was not found" \
    "get it from https://www.swift.org/install/linux/ (Debian 12), put its usr/bin into PATH, and run this again"
}

# release_build PRODUCT…: builds programs as they are installed: optimised, Swift's runtime inside, `bin` is their folder.
# No path of this machine is in them (-file-prefix-map), so that anyone gets the same ones. miniupnpc is
# linked statically, from a folder in which the linker finds no shared one: its soname changes with every Debian.
# A static Swift exports all symbols, for a stack trace's names, which packages have in their debug symbols; unexported, the
# linker leaves out what nobody calls: a tenth of the program.
release_build() {
  local link=$root/$scratch/link archive product
  archive=$(gcc -print-file-name=libminiupnpc.a)
  [[ $archive == /* ]] || fail "libminiupnpc.a is missing" "run: scripts/setup"
  mkdir -p "$link"
  ln -sfn "$archive" "$link/libminiupnpc.a"
  local build=(
    swift build --package-path "$root" --scratch-path "$root/$scratch" -c release --static-swift-stdlib
    -Xlinker "-L$link" -Xlinker --no-export-dynamic -Xswiftc -file-prefix-map -Xswiftc "$root=." -Xcc "-ffile-prefix-map=$root=."
  )
  for product in "$@"; do "${build[@]}" --product "$product"; done
  bin=$("${build[@]}" --show-bin-path)
}

# Whatever root built inside a person's checkout belongs to that person afterwards.
give_back() {
  [[ $EUID -eq 0 && -n ${SUDO_UID:-} && $SUDO_UID -ne 0 ]] || return 0
  local path
  for path in "$root"/.build* "$root/$scratch" "$root/Package.resolved"; do
    [[ -e $path ]] && chown -R --from=0 "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$path"
  done
  return 0
}
