#!/usr/bin/env bash
# LaTeX for the paper: installs it as root on Debian or Ubuntu, else says what to install. Never fails: without LaTeX
# the workflow builds everything but the PDF.
set -euo pipefail
log=$PWD/.venv/tex.log
packages=(texlive-latex-base texlive-latex-recommended latexmk lmodern)
commands=(latexmk pdflatex bibtex kpsewhich)
files=(booktabs.sty caption.sty hyperref.sty lmodern.sty microtype.sty natbib.sty plainnat.bst subcaption.sty)

complete() {
    local name
    for name in "${commands[@]}"; do
        command -v "$name" >/dev/null || return 1
    done
    kpsewhich "${files[@]}" >/dev/null # not 0 if one of them is missing
}

complete && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "flopstat: no complete LaTeX here, the paper will be skipped; needed: ${commands[*]} with ${files[*]}" >&2
    echo "flopstat: on Debian or Ubuntu: apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 0
fi
echo "flopstat: LaTeX (${packages[*]})"
mkdir -p "$(dirname "$log")"
export DEBIAN_FRONTEND=noninteractive
{
    apt-get -o Acquire::Retries=1 update &&
        apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${packages[@]}"
} >"$log" 2>&1 || true
complete || echo "flopstat: LaTeX could not be installed, the paper will be skipped; log in $log" >&2
