# Shared by the scripts: headings, a clear death, and the installation of what a test needs.
# shellcheck shell=bash

step() { printf '\n==> %s\n' "$*"; }
die() { printf '\nerror: %s\n' "$*" >&2; exit 1; }

# need COMMAND HINT: the command must be there already.
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing: $2"; }

# apt_install WHY PACKAGE...: installs Debian packages, as root or by password-less sudo.
apt_install() {
    local why=$1 sudo=()
    shift
    local ask="install it (apt-get install $*) and run this again"
    command -v apt-get >/dev/null 2>&1 || die "$why is missing and this is no Debian or Ubuntu: $ask"
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || die "$why is missing and installing it needs root: $ask"
        sudo=(sudo -n)
    fi
    step "install $*"
    "${sudo[@]}" apt-get update -qq || die "apt-get update failed: $ask"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        die "apt-get install $* failed: $ask"
}

# find_chromium: prints the path of a Chromium or Chrome, if there is one. CHROMIUM overrides.
find_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome; do
        [ -n "$name" ] && command -v "$name" && return 0
    done
    return 1
}

# npm_ci FOLDER: installs the locked npm packages of a folder, unless exactly these are there.
npm_ci() {
    local stamp=$1/node_modules/.installed-lock
    cmp -s "$1/package-lock.json" "$stamp" && return 0
    step "npm ci in $1"
    (cd "$1" && npm ci --no-audit --no-fund --loglevel=error) || die "npm ci failed in $1"
    cp "$1/package-lock.json" "$stamp"
}
