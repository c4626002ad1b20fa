# Where each file of an installation goes: the one list that scripts/install, scripts/uninstall and scripts/package
# share. Sourced by them, after common.sh.

programs=(pilot-tun pilotctl pilot-rendezvous)

# Pages that help who runs a node; those for who changes it stay in the repository.
guides=(commands comparison configuration containers drops errors fleet getting-started install interop logs metrics
  nat-traversal permissions rendezvous rootless security systemd troubleshooting trust)

# package_of FILE: which of the two packages a program, unit, page or completion belongs to.
package_of() {
  local name
  name=$(basename "$1")
  case ${name#_} in pilot-rendezvous* | pilot-beacon*) say pilot-rendezvous ;; *) say pilot-tun ;; esac
}

# layout BIN GENERATED PREFIX UNITS [ZSH]: one line for each file: package, mode, source, destination. GENERATED is what
# scripts/reference wrote; UNITS is the folder of unit files, ZSH that of zsh's completions below PREFIX.
layout() {
  local bin=$1 generated=$2 prefix=$3 units=$4 zsh=${5:-share/zsh/site-functions} name file file_place
  for name in "${programs[@]}"; do
    echo "$(package_of "$name") 755 $bin/$name $prefix/bin/$name"
    echo "$(package_of "$name") 644 $generated/completions/$name.bash $prefix/share/bash-completion/completions/$name"
    echo "$(package_of "$name") 644 $generated/completions/_$name $prefix/$zsh/_$name"
    echo "$(package_of "$name") 644 $generated/completions/$name.fish $prefix/share/fish/vendor_completions.d/$name.fish"
    echo "$(package_of "$name") 644 $generated/man/$name.1 $prefix/share/man/man1/$name.1"
  done
  echo "pilot-tun 644 $generated/man/pilot-tun.toml.5 $prefix/share/man/man5/pilot-tun.toml.5"
  echo "pilot-tun 644 $root/docs/config.toml.example $prefix/share/pilot-tun/config.toml.example"
  echo "pilot-rendezvous 644 $root/docs/rendezvous.toml.example $prefix/share/pilot-rendezvous/config.toml.example"
  echo "pilot-tun 644 $root/README.md $prefix/share/doc/pilot-tun/README.md"
  for name in "${guides[@]}"; do echo "pilot-tun 644 $root/docs/$name.md $prefix/share/doc/pilot-tun/$name.md"; done
  for file in "$root"/systemd/* "$root"/systemd/*.d/*; do
    [[ -f $file ]] || continue
    name=$(basename "$file")
    case ${file#"$root/systemd/"} in
      *.service | *.target | *.socket | *.timer | *.path | *.slice)
        echo "$(package_of "$name") 644 $file $units/$name" ;;
      *.sysusers | *sysusers.conf | sysusers.d/*.conf)
        name=${name%%.*} && echo "$(package_of "$name") 644 $file $prefix/lib/sysusers.d/$name.conf" ;;
      *.tmpfiles | *tmpfiles.conf | tmpfiles.d/*.conf)
        name=${name%%.*} && echo "$(package_of "$name") 644 $file $prefix/lib/tmpfiles.d/$name.conf" ;;
      *.rules)
        # polkit reads no other folders.
        file_place=$prefix/share && [[ $prefix == */usr || $prefix == usr ]] || file_place=/etc
        echo "$(package_of "$name") 644 $file $file_place/polkit-1/rules.d/50-$name" ;;
      *) fail "nobody knows where $file is installed" "add its kind to scripts/lib/layout.sh" ;;
    esac
  done
}

# install_file MODE SOURCE DESTINATION PREFIX: unit files are written for /usr/local and take PREFIX instead. The file
# appears whole, and a program that runs goes on with its own.
install_file() {
  install -D -m "0$1" "$2" "$3.new"
  case $2 in "$root"/systemd/*) sed -i "s|/usr/local/bin/|$4/bin/|g" "$3.new" ;; esac
  mv -f "$3.new" "$3"
}
