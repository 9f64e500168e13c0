# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the other scripts. `setup EXTRA` makes $ROOT/.venv and installs ncjax into it, or does nothing where that
# is done already. PYTHON=/path/to/python chooses the interpreter; an existing .venv keeps its own.

set -euo pipefail
trap 'exit 130' INT TERM

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)
VENV=$ROOT/.venv

fail() {
    echo "ncjax: $*" >&2
    exit 1
}

# The command as one would type it.
typed() {
    local word words=()
    for word; do [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] && words+=("$word") || words+=("${word@Q}"); done
    echo "${words[*]}"
}

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo "not runnable"; }

find_python() {
    local name seen="" names=(python3.13 python3.12 python3.11 python3 python)
    [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
    for name in "${names[@]}"; do
        if supported "$name"; then
            echo "$name"
            return
        fi
        ! command -v "$name" >/dev/null || seen+=" $name is $(version "$name"),"
    done
    fail "needs Python 3.11, 3.12 or 3.13;${seen:- found none,} install one or name it: PYTHON=/path/to/python3.12 bash launch/..."
}

# An environment is sound when it was made here, its making was not interrupted, and its Python runs.
sound() { [[ ! -e $VENV/incomplete ]] && grep -qsF "$VENV" "$VENV/bin/activate" && supported "$VENV/bin/python"; }

make_venv() {
    local python=$1
    rm -rf "$VENV"
    mkdir "$VENV"
    touch "$VENV/incomplete"
    # Debian packages Python without ensurepip: there the interpreter's own pip installs the one of the environment.
    "$python" -m venv "$VENV" >/dev/null 2>&1 ||
        { "$python" -m venv --without-pip "$VENV" && "$python" -m pip --python "$VENV/bin/python" install --quiet pip; } ||
        fail "$python can make no virtual environment (it needs the venv module, and pip 22.3 or newer)"
}

fingerprint() {
    "$VENV/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest(), sys.version)' \
        "$ROOT/pyproject.toml"
}

setup() {
    local extra=$1 stamp python
    stamp=$VENV/installed${extra:+-$extra}
    if ! sound || [[ -n ${PYTHON:-} && $(version "$PYTHON") != $(version "$VENV/bin/python") ]]; then
        python=$(find_python)
        make_venv "$python"
    fi
    if [[ ! -e $stamp || $(<"$stamp") != "$(fingerprint)" ]]; then
        echo "Installing ncjax into $VENV (Python $(version "$VENV/bin/python")); the first time it takes a few minutes."
        touch "$VENV/incomplete"
        # A killed pip leaves the mark behind, and the next run starts afresh; one that gives up by itself has tidied up.
        "$VENV/bin/python" -m pip install --quiet --editable "$ROOT${extra:+[$extra]}" || {
            rm "$VENV/incomplete"
            fail "the installation failed (see above); is there a network?"
        }
        fingerprint >"$stamp"
        rm "$VENV/incomplete"
    fi
}
