#!/bin/sh
# Installs Debian packages that are missing, when this user may; otherwise says what will be skipped.
missing=""
for package in "$@"; do
    case "$package" in
        chromium) command -v chromium >/dev/null 2>&1 && continue ;;
        nodejs) command -v node >/dev/null 2>&1 && continue ;;
        npm) command -v npm >/dev/null 2>&1 && continue ;;
        *) dpkg -s "$package" >/dev/null 2>&1 && continue ;;
    esac
    missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "not found:$missing (no apt-get here; what needs them is skipped)"
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    run=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    run="sudo"
else
    echo "not found:$missing (install with: sudo apt-get install$missing; what needs them is skipped)"
    exit 0
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
$run apt-get update -qq
# shellcheck disable=SC2086
$run apt-get install -y -qq --no-install-recommends $missing >/dev/null || echo "could not install$missing"
exit 0
