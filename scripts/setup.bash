# Sourced by the scripts beside it: goes to the top of the repository, installs what is missing, picks a Rust.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:/usr/sbin:/sbin
# What is built once needs no records for the next time.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

# apt_install PACKAGE...
apt_install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: $* (Debian's names). Install them, or run this as root where apt-get is." >&2
        exit 1
    fi
    echo "installing $*"
    local apt=(apt-get -q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0) log
    log=$(mktemp)
    if ! { "${apt[@]}" update && DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@"; } \
        </dev/null >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        exit 1
    fi
    rm "$log"
}

# installs COMMAND=PACKAGE...: installs each package whose command (or file, where it has a slash) is missing.
installs() {
    local missing=() pair
    for pair in "$@"; do
        case ${pair%%=*} in
        */*) [ -e "${pair%%=*}" ] || missing+=("${pair#*=}") ;;
        *) command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}") ;;
        esac
    done
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

# Whether the Rust on PATH is at least 1.88.
rust_is_new_enough() {
    local version
    version=$(rustc --version 2>/dev/null | cut -d' ' -f2) && command -v cargo >/dev/null &&
        [ "$(printf '1.88\n%s\n' "$version" | sort -V | head -n 1)" = 1.88 ]
}

# Rust and a C compiler (SQLite, zstd and libdeflate are C), and the target that makes the binary static.
rust() {
    installs gcc=gcc /usr/include/stdlib.h=libc6-dev
    if ! rust_is_new_enough; then
        # Debian 12 keeps a current Rust for its browsers under another name.
        if apt-cache policy rustc-web 2>/dev/null | grep -q 'Candidate: 1'; then
            apt_install rustc-web cargo-web
        else
            apt_install rustc cargo
        fi
        hash -r
        rust_is_new_enough || { echo "Rust 1.88 or newer is needed; see https://rustup.rs" >&2; exit 1; }
    fi
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    [ "$host" = x86_64-unknown-linux-gnu ] || export CARGO_BUILD_TARGET=$host
    TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
    RELEASE=$TARGET_DIR/$host/release
    DEBUG=$TARGET_DIR/$host/debug
    # Where cargo lets the tests keep files, which use the same bases.
    BASES=$TARGET_DIR/$host/tmp
}
