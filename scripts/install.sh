#!/bin/sh
# Makes this machine a node of a Pilot network, from packages: checks what it needs, installs pilot-tun, writes the
# settings, starts it. Asks nothing; running it again changes only what differs.
#
#   curl -fsSL URL/install.sh | sh -s -- --rendezvous HOST --hostname NAME
set -eu

# Where the packages of this release are; scripts/package --url writes it.
default_url=''

usage() {
  cat <<'TEXT'
usage: install.sh [--rendezvous HOST[:PORT]] [--hostname NAME] [--packages DIR | --url URL] [--with-rendezvous] [--no-start]
       install.sh --uninstall [--purge]
  --rendezvous HOST   directory that the node joins; without it the node runs its own
  --hostname NAME     name of the node: others reach it as NAME.pilot
  --packages DIR      folder with the packages and SHA256SUMS, as scripts/package made them
  --url URL           where to fetch them from
  --with-rendezvous   install pilot-rendezvous too (a directory server; it is not started)
  --no-start          install and write settings only, as in the building of an image
  --uninstall         remove the programs; identity, trust and settings stay
  --purge             with --uninstall: remove those too
TEXT
}

say() { printf '%s\n' "$*"; }
did() { printf '  %s\n' "$*"; }

# fail MESSAGE HINT
fail() {
  printf 'error: %s\nhint:  %s\n' "$1" "$2" >&2
  exit 1
}

wrong() {
  printf 'error: %s\n' "$1" >&2
  usage >&2
  exit 2
}

settings=/etc/pilot-tun/config.toml
log=/var/log/pilot-tun.log
work=

clean_up() {
  if [ -n "$work" ]; then rm -rf "$work"; fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- what this machine is ----------------------------------------------------------------------------------------

# 1.2.3 is at least 1.2?
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

check_machine() {
  [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); pilot-tun runs on Linux" "use a Linux machine, virtual machine or container"
  [ "$(id -u)" = 0 ] || fail "installing needs root" "pipe into: sudo sh -s -- …"
  if ! command -v dpkg >/dev/null || ! command -v apt-get >/dev/null; then
    fail "this system has no apt: the packages are for Debian 12, Ubuntu 24.04 and later" \
      "build from source (scripts/install), or run a Debian container (docs/containers.md)"
  fi
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2) || glibc=
  if [ -z "$glibc" ] || ! at_least "$glibc" 2.36; then
    # shellcheck disable=SC1091
    name=$(. /etc/os-release 2>/dev/null && printf %s "${PRETTY_NAME:-}") || name=
    fail "${name:-this system} has ${glibc:+glibc $glibc}${glibc:-no glibc}; the programs need 2.36" \
      "Debian 12, Ubuntu 24.04 and later have it; or build from source (scripts/install)"
  fi
  architecture=$(dpkg --print-architecture)
}

has_systemd() { [ -d /run/systemd/system ]; }

# Bit 12 of the effective set (capabilities(7)).
has_net_admin() {
  set_bits=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
  case $(printf %s "$set_bits" | tail -c 4 | head -c 1) in [13579bdfBDF]) return 0 ;; *) return 1 ;; esac
}

# What running needs, checked before anything is changed. systemd gives a service its own capabilities.
check_running() {
  if ! [ -e /dev/net/tun ]; then
    if has_systemd || [ -d /lib/modules ]; then modprobe tun 2>/dev/null || true; fi
  fi
  if ! [ -e /dev/net/tun ]; then
    fail "/dev/net/tun does not exist: there is no way to make a network interface" \
      "on a host: modprobe tun; in a container: --device /dev/net/tun (docs/containers.md); --no-start installs anyway"
  fi
  # The subshell keeps a failed redirection from ending the script.
  if ! (: <>/dev/net/tun) 2>/dev/null; then
    fail "/dev/net/tun cannot be opened" "in a container: --device /dev/net/tun; --no-start installs anyway"
  fi
  if ! has_systemd && ! has_net_admin; then
    fail "the capability NET_ADMIN is missing: interfaces cannot be configured" \
      "in a container: --cap-add NET_ADMIN (docs/containers.md); --no-start installs anyway"
  fi
}

# --- packages ----------------------------------------------------------------------------------------------------

fetch() {
  if command -v curl >/dev/null; then
    curl -fsSL --retry 2 -o "$2" "$1" || fail "cannot fetch $1" "check the address and the network, or give --packages DIR"
  elif command -v wget >/dev/null; then
    wget -q -O "$2" "$1" || fail "cannot fetch $1" "check the address and the network, or give --packages DIR"
  else
    fail "neither curl nor wget is here to fetch $1" "apt-get install curl, or give --packages DIR"
  fi
}

# find_packages: puts SHA256SUMS and the wanted packages into $work, checked; `files` lists them.
find_packages() {
  work=$(mktemp -d)
  # apt reads the files as a user of its own.
  chmod 0755 "$work"
  if [ -n "$packages" ]; then
    [ -f "$packages/SHA256SUMS" ] || fail "$packages/SHA256SUMS does not exist" "scripts/package writes it beside the packages"
    cp "$packages/SHA256SUMS" "$work/"
  else
    fetch "$url/SHA256SUMS" "$work/SHA256SUMS"
  fi
  files=
  for package in $wanted; do
    file=$(sed -n "s/^[0-9a-f]\{64\}  \(${package}_[A-Za-z0-9.+~-]*_$architecture\.deb\)\$/\1/p" "$work/SHA256SUMS")
    case $file in
      '') fail "there is no package $package for $architecture in ${packages:-$url}" "build one on such a machine: scripts/package" ;;
      *"
"*) fail "there are several versions of $package in ${packages:-$url}" "leave one there" ;;
    esac
    if [ -n "$packages" ]; then
      cp "$packages/$file" "$work/" || fail "$packages/$file cannot be read" "SHA256SUMS names it"
    else
      fetch "$url/$(printf %s "$file" | sed 's/~/%7E/g; s/+/%2B/g')" "$work/$file"
    fi
    grep -F "  $file" "$work/SHA256SUMS" >"$work/wanted"
    (cd "$work" && sha256sum --check --quiet wanted >/dev/null 2>&1) \
      || fail "$file is not what SHA256SUMS says" "it is incomplete or was changed: fetch it again"
    files="$files $file"
  done
}

install_packages() {
  missing=
  for file in $files; do
    package=${file%%_*}
    version=$(dpkg-deb -f "$work/$file" Version)
    state=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$package" 2>/dev/null || true)
    if [ "$state" = "installed $version" ]; then
      did "$package $version is installed"
    else
      did "installing $package $version"
      # Without systemd the program that runs is still the old one; with it, an upgrade has restarted it.
      has_systemd || changed=true
      missing="$missing $work/$file"
    fi
  done
  [ -n "$missing" ] || return 0
  # shellcheck disable=SC2086
  if ! install_with_apt $missing; then
    tail -n 20 "$work/apt.log" >&2
    fail "apt-get could not install the packages" "its last words are above"
  fi
}

# Where systemd-resolved answers names, the node tells it of its own; resolved asks polkit whether a user other than root
# may. The package only recommends it, and recommendations are not installed.
install_polkit() {
  if ! [ -x /lib/systemd/systemd-resolved ] || [ -e /usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service ]; then
    return 0
  fi
  did "installing polkitd: systemd-resolved asks it whether the node may set names"
  if ! install_with_apt polkitd; then
    say "warning: polkitd could not be installed, so NAME.pilot does not resolve yet; later: apt-get install polkitd"
  fi
}

# The lists of a fresh image are empty: they are fetched when something is missing.
install_with_apt() {
  export DEBIAN_FRONTEND=noninteractive
  set -- apt-get -q -y --no-install-recommends --allow-downgrades -o Dpkg::Options::=--force-confold install "$@"
  "$@" >"$work/apt.log" 2>&1 </dev/null && return 0
  { apt-get -q update && "$@"; } >>"$work/apt.log" 2>&1 </dev/null
}

# --- settings ----------------------------------------------------------------------------------------------------

# set_key KEY VALUE: writes `KEY = "VALUE"` where it stands (also commented out), else at the end; tells the change.
set_key() {
  [ -n "$2" ] || return 0
  line="$1 = \"$2\""
  if grep -qxF "$line" "$settings" 2>/dev/null; then
    did "$settings has $line"
    return 0
  fi
  mkdir -p "${settings%/*}"
  [ -e "$settings" ] || : >"$settings"
  next=$settings.new
  # Its mode and owner stay.
  cp -p "$settings" "$next"
  LINE=$line awk -v key="$1" '
    !done && $0 ~ "^[ \t]*#?[ \t]*" key "[ \t]*=" { print ENVIRON["LINE"]; done = 1; next }
    $0 ~ "^[ \t]*" key "[ \t]*=" { next }
    { print }
    END { if (!done) print ENVIRON["LINE"] }' "$settings" >"$next"
  mv "$next" "$settings"
  did "$settings: $line"
  changed=true
}

# --- running -----------------------------------------------------------------------------------------------------

start_service() {
  if systemctl --quiet is-active pilot-tun.service; then
    if $changed; then
      did "restarting pilot-tun.service: settings or programs changed"
      verb=restart
    else
      did "pilot-tun.service runs"
      verb=
    fi
  else
    did "starting pilot-tun.service"
    verb=start
  fi
  systemctl --quiet enable pilot-tun.service
  if [ -n "$verb" ] && ! systemctl "$verb" pilot-tun.service; then
    journalctl --no-pager -n 10 -u pilot-tun.service >&2 || true
    fail "pilot-tun.service did not start" "its last words are above; all of them: journalctl -u pilot-tun"
  fi
}

# Without systemd (containers): in the background, with a log of its own.
start_process() {
  if pilot-tun status >/dev/null 2>&1; then
    if ! $changed; then
      did "pilot-tun runs"
      return 0
    fi
    did "stopping pilot-tun: settings or programs changed"
    pilot-tun down >/dev/null
  fi
  did "starting pilot-tun in the background (there is no systemd); log: $log"
  setsid pilot-tun up </dev/null >>"$log" 2>&1 &
  pid=$!
  seconds=0
  until pilot-tun status >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null || [ "$seconds" -ge 30 ]; then
      tail -n 10 "$log" >&2
      fail "pilot-tun did not start" "its last words are above; by hand: pilot-tun up"
    fi
    sleep 1
    seconds=$((seconds + 1))
  done
}

# --- removing ----------------------------------------------------------------------------------------------------

uninstall() {
  [ "$(id -u)" = 0 ] || fail "removing needs root" "pipe into: sudo sh -s -- --uninstall"
  verb=remove
  if $purge; then verb=purge; fi
  say "Removing pilot-tun"
  present=
  for package in pilot-tun pilot-rendezvous pilot-tun-dbgsym pilot-rendezvous-dbgsym; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    case $state in
      '' | not-installed) ;;
      config-files) if $purge; then present="$present $package"; fi ;;
      *) present="$present $package" ;;
    esac
  done
  if [ -n "$present" ]; then
    work=$(mktemp -d)
    # shellcheck disable=SC2086
    if ! DEBIAN_FRONTEND=noninteractive apt-get -q -y "$verb" $present >"$work/apt.log" 2>&1 </dev/null; then
      tail -n 20 "$work/apt.log" >&2
      fail "apt-get could not $verb$present" "its last words are above"
    fi
    did "$verb:$present"
  else
    did "no package is installed"
  fi
  rm -f "$log"
  if $purge; then
    # Also of a node that was installed in another way.
    rm -rf /etc/pilot-tun /var/lib/pilot-tun /var/lib/pilot-rendezvous
    did "identity, trust and settings are gone"
  else
    did "kept: /var/lib/pilot-tun (identity, trust), /etc/pilot-tun (settings); --purge removes them"
  fi
}

# --- the line ----------------------------------------------------------------------------------------------------

main() {
  rendezvous='' hostname='' packages='' url=$default_url wanted=pilot-tun start=true remove=false purge=false changed=false
  while [ $# -gt 0 ]; do
    case $1 in
      --rendezvous | --hostname | --packages | --url)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        case $1 in
          --rendezvous) rendezvous=$2 ;;
          --hostname) hostname=$2 ;;
          --packages) packages=$2 ;;
          --url) url=${2%/} ;;
        esac
        shift 2
        ;;
      --with-rendezvous) wanted='pilot-tun pilot-rendezvous'; shift ;;
      --no-start) start=false; shift ;;
      --uninstall) remove=true; shift ;;
      --purge) purge=true; shift ;;
      -h | --help) usage; exit 0 ;;
      *) wrong "unknown: $1" ;;
    esac
  done
  if $remove; then
    uninstall
    return 0
  fi
  if $purge; then wrong "--purge goes with --uninstall"; fi
  case $hostname in *[!a-z0-9-]*) wrong "--hostname $hostname: only a-z, 0-9 and - make a name" ;; esac
  case $rendezvous in *[!A-Za-z0-9.:_-]*) case $rendezvous in *[!][A-Za-z0-9.:_-]*) wrong "--rendezvous $rendezvous is no HOST[:PORT]" ;; esac ;; esac
  [ -n "$packages$url" ] || wrong "where are the packages? --packages DIR or --url URL"

  say "Checking this machine"
  check_machine
  if $start; then check_running; fi
  did "$(uname -s) on $architecture, glibc $glibc, $(if has_systemd; then echo systemd; else echo "no systemd"; fi)"
  find_packages
  did "packages are what SHA256SUMS says"

  say "Installing"
  install_packages
  install_polkit
  set_key rendezvous "$rendezvous"
  set_key hostname "$hostname"

  if ! $start; then
    say "Installed, not started. Start it with: $(if has_systemd; then echo systemctl enable --now pilot-tun; else echo pilot-tun up; fi)"
    return 0
  fi
  say "Starting"
  if has_systemd; then start_service; else start_process; fi
  say "Done. What it is doing: pilot-tun status"
}

# All of it is read before any of it runs: a connection that breaks leaves nothing half done.
main "$@"
