# Sourced by the other scripts. Goes to the root of the repository and gives them
#
#   make_environment [dev]   netdef installed into .venv, with the tools of the "dev" extra if asked for;
#                            at once, and without network, if pyproject.toml is the same as last time
#   $venv_python             the interpreter of that environment
#
# Needs Python >= 3.10. PYTHON=/path/to/python3 chooses which one makes the environment.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"
venv=$repository/.venv
venv_python=$venv/bin/python
# Says what pyproject.toml, and which extra, the environment was last installed from.
stamp=$venv/netdef-installed

make_environment() {
    local extra=${1:-} now
    works "$venv_python" || create_environment
    # An editable install points at this folder, so a clone that has moved must install again; so
    # must one whose Python was replaced by a newer one.
    now=$({ echo "$repository" && "$venv_python" --version && cat pyproject.toml; } | cksum)
    if installed "$now dev" || { [[ -z $extra ]] && installed "$now "; }; then
        return
    fi
    echo "Installing netdef${extra:+ and its development tools} into .venv ..."
    rm -f "$stamp"
    "$venv_python" -c 'import pip' 2>/dev/null || create_environment
    "$venv_python" -m pip install --quiet --disable-pip-version-check --no-input \
        --editable ".${extra:+[$extra]}" ||
        fail "pip could not install netdef; its message is above. The first run needs the network."
    echo "$now $extra" >"$stamp"
}

installed() {
    [[ -f $stamp && $(<"$stamp") == "$1" ]]
}

create_environment() {
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: install its venv module" \
            "(Debian, Ubuntu: sudo apt-get install python3-venv)."
    echo "Making a virtual environment in .venv ..."
    "$python" -m venv --clear "$venv" || fail "$python could not make $venv; its message is above."
}

# Prints the interpreter to use: $PYTHON, or the first on PATH that is new enough.
find_python() {
    local python found=
    if [[ -n ${PYTHON:-} ]]; then
        works "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.10 or newer."
        echo "$PYTHON"
        return
    fi
    for python in python3 python3.{14,13,12,11,10} python; do
        if works "$python"; then
            echo "$python"
            return
        fi
        found=${found:-$("$python" --version 2>/dev/null || true)}
    done
    fail "netdef needs Python 3.10 or newer, but there is ${found:-none} here:" \
        "install one, or name one with PYTHON=/path/to/python3."
}

works() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}
