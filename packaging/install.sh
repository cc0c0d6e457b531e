#!/bin/sh
# Installs the programs with their completions and manual pages:
#
#     cargo build --release && packaging/install.sh /usr/local
#
# install.sh PREFIX [BIN_DIR]: the programs come from BIN_DIR (default: target/release beside this folder);
# huozi-tui and huozi-convert are left out where they were not built. Packages are staged below $DESTDIR.
# PowerShell and Elvish have no folder for completions: see `huozi completions --help`.
set -eu

[ $# -ge 1 ] && [ $# -le 2 ] || { echo "usage: $0 PREFIX [BIN_DIR]" >&2; exit 2; }
case $1 in
    /*) ;;
    *) echo "$0: PREFIX must be an absolute path: $1" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
to=${DESTDIR:-}$1
from=${2:-$root/target/release}
[ -x "$from/huozi" ] || { echo "$0: $from/huozi is missing: run cargo build --release first" >&2; exit 1; }

# Everything is made before anything is installed.
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
mkdir "$made/man"

# scripts PROGRAM COMMAND...: the completions of PROGRAM, as COMMAND SHELL prints them
scripts() {
    program=$1
    shift
    for shell in bash zsh fish; do
        "$@" "$shell" >"$made/$program.$shell"
    done
}
programs=huozi
scripts huozi "$from/huozi" completions
"$from/huozi" man "$made/man" >/dev/null
if [ -x "$from/huozi-tui" ]; then
    programs="$programs huozi-tui"
    scripts huozi-tui "$from/huozi" completions --program huozi-tui
else
    rm -f "$made/man/huozi-tui.1"
fi
if [ -x "$from/huozi-convert" ]; then
    programs="$programs huozi-convert"
    scripts huozi-convert "$from/huozi-convert" completions
    "$from/huozi-convert" man "$made/man" >/dev/null
fi

share=$to/share
mkdir -p "$to/bin" "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/site-functions" \
    "$share/fish/vendor_completions.d" "$share/doc/huozi"
for program in $programs; do
    install -m 755 "$from/$program" "$to/bin/$program"
    install -m 644 "$made/$program.bash" "$share/bash-completion/completions/$program"
    install -m 644 "$made/$program.zsh" "$share/zsh/site-functions/_$program"
    install -m 644 "$made/$program.fish" "$share/fish/vendor_completions.d/$program.fish"
done
install -m 644 "$made/man/"*.1 "$share/man/man1/"
install -m 644 "$root/README.md" "$root/README.zh.md" "$root/LICENSE" "$share/doc/huozi/"
echo "installed in $to: $programs"
