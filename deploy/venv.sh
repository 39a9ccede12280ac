#!/bin/sh
# Makes the virtual environment of an image; the Dockerfile calls it twice, so that code can change without
# installing everything anew. Versions are those of constraints.txt, and nothing is installed whose hash is not in
# constraints-hashed.txt.
#   venv.sh dependencies cpu|gpu-cuda12|gpu-cuda13 [EXTRA...]
#                      what pyproject.toml asks for, with the extra server-slim and the named ones
#   venv.sh project    the project itself
set -eu
here=$(dirname "$0")
tools=${TOOLS_DIR:-/opt/tools}/bin
venv=${VENV_DIR:-/opt/venv}

# A CA of the builder's own, given as a secret; pip and what pip starts read it from here.
if [ -s /run/secrets/ca ]; then
    export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
fi

install_dependencies() {
    flavour=$1
    shift
    cuda=${flavour#gpu-cuda}
    # NVIDIA's images set CUDA_VERSION. ONNX Runtime for another CUDA would only fail on a machine with a GPU.
    if [ "$flavour" != cpu ] && [ "${CUDA_VERSION:-$cuda}" != "$cuda" ] && [ "${CUDA_VERSION%%.*}" != "$cuda" ]; then
        echo "venv.sh: the base has CUDA $CUDA_VERSION, and $flavour needs CUDA $cuda: give CUDA=${CUDA_VERSION%%.*}" >&2
        exit 2
    fi
    # pip stays outside: the environment that is shipped has none.
    python3 -m venv "${tools%/bin}"
    python3 -m venv --without-pip "$venv"
    if [ "$flavour" = cpu ]; then
        # Without a GPU the plain build of ONNX Runtime does the same and is 261 MiB smaller. No marker can say
        # that, so it is said here, in the metadata too.
        sed -i -e '/"onnxruntime-gpu/d' -e '/^gpu = /d' -e 's/\("onnxruntime>=[^;"]*\);[^"]*"/\1"/' pyproject.toml
        sed -i -e '/^onnxruntime-gpu==/d' -e 's/^\(onnxruntime==[^ ]*\) ;.*/\1/' constraints.txt
    else
        # The markers choose by platform, since on arm64 few machines have CUDA. Here the image decides.
        sed -i -e '/"onnxruntime>=/d' -e 's/\("onnxruntime-gpu>=[^;"]*\);[^"]*"/\1"/' pyproject.toml
        sed -i -e '/^onnxruntime==/d' -e 's/^\(onnxruntime-gpu==[^ ]*\) ;.*/\1/' constraints.txt
    fi
    if [ "$cuda" = 12 ]; then
        # The last build for CUDA 12, in place of the one for CUDA 13; in the metadata too. Its tools need SymPy.
        sed -i -e 's/"onnxruntime-gpu>=[0-9.]*/"onnxruntime-gpu>=1.26/' -e 's/^optimize = \[/&"sympy", /' pyproject.toml
        sed -i -e '/^onnxruntime-gpu==/d' constraints.txt
        sed -n -e 's/^\(onnxruntime-gpu==[^ ]*\).*/\1/p' constraints-cuda12.txt >> constraints.txt
    fi
    python3 - "$@" <<'PYTHON'
import re
import sys
import tomllib
from pathlib import Path

document = tomllib.loads(Path("pyproject.toml").read_text())
project = document["project"]
extras = project["optional-dependencies"]


def resolve(requirements):
    """Yield the requirements, those of the project's own extras in place of their names."""
    for requirement in requirements:
        own = re.fullmatch(re.escape(project["name"]) + r"\[(.+)\]", requirement)
        if own is None:
            yield requirement
        else:
            for extra in own[1].split(","):
                # Only images that ask for Evidently get it; most extras include the whole service.
                yield from resolve(extras["server-slim" if extra == "server" else extra])


for extra in sys.argv[1:]:
    if extra not in extras:
        sys.exit(f"EXTRAS: {extra!r} is not an extra of this project; allowed are {', '.join(extras)}")
wanted = [*project["dependencies"], *(each for extra in ("server-slim", *sys.argv[1:]) for each in extras[extra])]
Path("requirements.txt").write_text("\n".join(dict.fromkeys(resolve(wanted))) + "\n")
Path("tools.txt").write_text("\n".join(document["build-system"]["requires"]) + "\n")
PYTHON
    install_hashed "$tools/python3" tools.txt
    install_hashed "$venv/bin/python3" requirements.txt
    python3 "$here/prune.py" "$("$venv/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
}

# Installs for PYTHON what the file REQUIREMENTS asks for: first pip says what that would be, for which it reads only
# metadata, and then it installs just that, by hash.
install_hashed() {
    "$tools/pip" --python "$1" install --quiet --dry-run --report report.json \
        --only-binary :all: -c constraints.txt -r "$2"
    cat constraints-hashed.txt constraints-cuda12.txt > lock.txt
    python3 "$here/hashed_requirements.py" lock.txt report.json > hashed.txt
    "$tools/pip" --python "$1" install --quiet --require-hashes --no-deps --only-binary :all: -r hashed.txt
}

install_project() {
    "$tools/pip" wheel --quiet --no-deps --no-build-isolation --no-cache-dir --wheel-dir dist .
    "$tools/pip" --python "$venv/bin/python3" install --quiet --no-deps --no-cache-dir dist/*.whl
    "$tools/pip" --python "$venv/bin/python3" check
    # A test of the loader, and of the libraries that the base must bring.
    "$venv/bin/python3" -c "import cv2, av, onnxruntime"
}

case "${1-}" in
    dependencies)
        shift
        case "${1-}" in
            cpu | gpu-cuda12 | gpu-cuda13) install_dependencies "$@" ;;
            *) echo "venv.sh dependencies ${1-}: allowed are cpu, gpu-cuda12 and gpu-cuda13" >&2; exit 2 ;;
        esac
        ;;
    project) install_project ;;
    *) echo "venv.sh ${1-}: allowed are dependencies and project" >&2; exit 2 ;;
esac
