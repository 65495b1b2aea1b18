# What people type. Every recipe works without anything activated: ./drydockw installs what it needs.

set positional-arguments

drydock := "./drydockw drydock"

# Where the user's environment forbids to keep bytecode, each worker would compile pytest again: 3 s of processor.
pytest := "PYTHONDONTWRITEBYTECODE= ./drydockw pytest -n 2"

# List the recipes
[private]
default:
    @just --list --unsorted

# Build the environment of a profile, for instance `just build m4`
[group('use')]
build profile="auto" *options:
    {{ drydock }} build "$@"

# Build if needed, then run the trainer: `just run cpu -- --steps 5`
[group('use')]
run profile="auto" *arguments:
    {{ drydock }} run "$@"

# Open a shell in the environment of a profile
[group('use')]
shell profile="auto":
    {{ drydock }} shell "$@"

# Check a built environment: versions, files, machine, proofs
[group('use')]
verify profile="auto":
    {{ drydock }} verify "$@"

# Lock profiles again where they changed (default: all)
[group('profiles')]
lock *arguments:
    {{ drydock }} lock "$@"

# Write again each command's screen (tests/cli/snapshots/) and manual page (man/); look at the difference
[group('develop')]
snapshots:
    DRYDOCK_TESTS_SNAPSHOTS=write {{ pytest }} -q -m "" tests/cli/test_snapshots.py tests/fleet/test_screens.py tests/cli/test_man.py

# Write the generated files under generated/ (default: of all profiles)
[group('profiles')]
render *arguments:
    {{ drydock }} render "$@"

# List the profiles
[group('profiles')]
profiles:
    {{ drydock }} profile list

# Make the lists of releases that patches fit, from the wheels: profiles/patches/*.releases.toml
[group('profiles')]
patch-releases *arguments:
    ./drydockw python profiles/recipes/releases.py "$@"

# Make the table of conda's names from a clone of prefix-dev/parselmouth: builder/author/importing/conda_names.txt
[group('profiles')]
conda-names checkout:
    PYTHONPATH=. ./drydockw python profiles/recipes/conda_names.py "$@"

# Run the fast tests: of everything, or of one wing with its doctests, for instance `just test profile -k schema`
[group('develop')]
test wing="" *arguments:
    shift; {{ pytest }} --dist worksteal {{ if wing == "" { "" } else if path_exists("tests" / wing) == "true" { quote("tests" / wing) + if path_exists("builder" / wing) == "true" { " " + quote("builder" / wing) } else { "" } } else { quote(wing) } }} "$@"

# Many slow ones wait, for a time of grace to be over or for a disk: so more at a time than the two cores of CI.
# Run all tests: real wheels, training, emulation where the machine allows it
[group('develop')]
test-all *arguments:
    HYPOTHESIS_PROFILE=ci {{ pytest }} -n 4 --dist worksteal -m "" "$@"

# Try everything that needs a GPU of NVIDIA, on this machine's, with the torch that the Python `python` has
[group('develop')]
test-gpu python *arguments:
    shift; DRYDOCK_TESTS_TORCH={{ quote(python) }} {{ pytest }} -m gpu -n 0 -s tests/gpu "$@"

# Build, train, and kill and resume a starter on an emulated aarch64 machine (qemu-user-static, Linux 6.7): ten minutes
[group('develop')]
emulate-arm64 profile="cpu-arm64":
    ./drydockw python -m tests.emulation.starter "$@"

# Materialise cuda13-arm64 in a new folder, of 3 GB of wheels, and print what its torch was built for; CI locks it only
[group('develop')]
cross-cuda13 folder:
    {{ drydock }} build cuda13-arm64 --cross "$1"
    cat "$1/.drydock/architectures"

# Measure which lines and branches the fast tests reach, in the processes of the program too: a table, and htmlcov/
[group('develop')]
coverage *arguments:
    PYTHONDONTWRITEBYTECODE= ./drydockw coverage run -m pytest -n 2 --dist worksteal "$@"
    ./drydockw coverage combine --quiet
    ./drydockw coverage html --quiet
    ./drydockw coverage report

# Run the fast tests on another Python, for instance `just test-python 3.13`: pyenv's, or what uv finds or fetches
[group('develop')]
test-python version *arguments:
    for bin in ~/.pyenv/versions/"$1".*/bin; do PATH=$PATH:$bin; done; ./drydockw uv venv --quiet --allow-existing --python "$1" ".venv-$1"
    ./drydockw uv pip sync --quiet --python ".venv-$1" --require-hashes requirements/dev.txt
    ./drydockw uv pip install --quiet --python ".venv-$1" --no-deps --no-build-isolation --editable .
    version=$1; shift; PYTHONDONTWRITEBYTECODE= ".venv-$version/bin/python" -m pytest -n 2 --dist worksteal "$@"

# Feed every reader with damaged files, for instance `just fuzz 1000000`; the tests do so briefly
[group('develop')]
fuzz count="20000" *options:
    ./drydockw python -m tests.fuzz "$@"

# What CI checks besides the tests: style, types, layers, scripts, locks and generated files
[group('develop')]
check:
    ./drydockw ruff format --check .
    ./drydockw ruff check .
    ./drydockw mypy
    ./drydockw mypy --strict requirements/install.py
    ./drydockw lint-imports
    ./drydockw shellcheck drydockw .ci/run builder/fleet/host.sh benchmarks/hosts.sh benchmarks/nfs.sh generated/*/*.sh
    {{ drydock }} lock --check
    {{ drydock }} render --check
    {{ drydock }} profile schema --check --out profiles/profile.schema.json

# Format the code
[group('develop')]
fmt:
    ./drydockw ruff check --fix-only .
    ./drydockw ruff format .

# Build the documentation into site/, or `just docs serve`
[group('develop')]
docs command="build" *options:
    ./drydockw mkdocs {{ command }} --strict {{ options }}

# Write pictures of the site's pages, on a desk and on a phone, light and dark, for instance `just screenshots /tmp/site profiles`
[group('develop')]
screenshots folder *pages:
    ./drydockw python -m tests.shipped.site "$@"

# Record the README's first command on a terminal, in a clone with an empty home: docs/images/recording.svg; look at it
[group('develop')]
recording:
    ./drydockw python -m tests.shipped.recording

# Measure Drydock beside uv, as ratios
[group('develop')]
bench *arguments:
    ./drydockw python benchmarks/run.py "$@"

# Import and lock each project of a folder, checkouts or files, beside `uv pip compile` of the same file: a table
[group('develop')]
bench-projects folder *arguments:
    ./drydockw python benchmarks/projects.py "$@"

# Measure what a fleet of 25 and of 50 hosts costs the desk, by sshd on loopback ports: a table
[group('develop')]
bench-fleet *arguments:
    ./drydockw python benchmarks/fleet.py many "$@"

# Measure on a fleet of namespaces (root, Linux) what a second host takes by bundle, wheels and copy: a table
[group('develop')]
bench-copy folder:
    ./drydockw python benchmarks/fleet.py second "$@"

# Deploy to fifty hosts with one dead, one frozen and one full among them: what is said of these, and how late the others are
[group('develop')]
bench-faults *arguments:
    ./drydockw python benchmarks/fleet.py faults "$@"

# Take the network of the desk away for a minute while it deploys, and while it trains (root, Linux): what it says
[group('develop')]
lab-network folder *arguments:
    ./drydockw python benchmarks/fleet.py network "$@"

# Build, train, pull a plug and roll back on twelve hosts in namespaces (root, Linux): the transcript of docs/how-to/fleet.md
[group('develop')]
lab folder *arguments:
    ./drydockw python benchmarks/fleet.py lab "$@"

# Measure an environment and its image on NFS, in a virtual machine (root, Debian): a line for each
[group('develop')]
bench-nfs env image folder *rtt:
    sh benchmarks/nfs.sh "$@"

# Kill builds, let users race and delete files of stages: what is changed outside of the store?
[group('develop')]
storm *options:
    ./drydockw python -m tests.storm "$@"

# It starts code that deletes files, changed at random: in a container, or another machine that nobody needs.
# Change the code, one place at a time, and name what no test notices: `just mutate builder/lock/model.py`
[group('develop')]
mutate *arguments:
    ./drydockw python -m tests.mutate "$@"

# Write the wheel and the source distribution into dist/: the same commit gives the same bytes
[group('develop')]
dist:
    ./drydockw uv build --no-build-isolation --out-dir dist

# Pin the tools of ./drydockw again, by hash
[group('develop')]
requirements *options:
    ./drydockw uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "just requirements" pyproject.toml --group build --output-file requirements/run.txt "$@"
    ./drydockw uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "just requirements" pyproject.toml --group dev --output-file requirements/dev.txt "$@"
