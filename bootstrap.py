#!/usr/bin/env python3
"""Sets up `.venv` and runs one of the project's tasks in it: demo, test, lint, bench, docs, or only setup.

`adapters` has an environment of its own, `.venv-adapters`: what it needs asks for other versions.

Needs nothing but Python 3.11 or newer with its own standard library. The Makefile calls it; where there is no
make (Windows), call it directly: `python bootstrap.py demo`. A stamp keyed on the inputs (pyproject.toml,
constraints.txt, this file, the Python in use) makes every call after the first a matter of milliseconds.

PyTorch: one that fits is kept; with an NVIDIA driver or on macOS the plain `torch` is taken; elsewhere the
CPU build is tried first, from the sources pip is set up with or from the index named by --torch-index,
because the plain build for Linux brings gigabytes of CUDA libraries that a machine without a GPU cannot use.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
WINDOWS = os.name == "nt"
PYTHON = os.path.join(VENV, "Scripts" if WINDOWS else "bin", "python.exe" if WINDOWS else "python")
STAMP = os.path.join(VENV, "hippodrome-stamp.json")
INPUTS = ("pyproject.toml", "constraints.txt", "bootstrap.py")

OLDEST = (3, 11)
PIP = (25, 1)  # the first that knows --group
TORCH = "2.13.0"

# Signs in pip's output that no index could be reached.
OFFLINE = (
    "name resolution",
    "NewConnectionError",
    "Connection refused",
    "ConnectTimeout",
    "ReadTimeout",
    "Network is unreachable",
    "nodename nor servname",
    "getaddrinfo failed",
    "ProxyError",
)

DEMO = "runs/demo"
DEMO_MODELS = "gru,attention,s4d,min_gru,mamba,mamba2,mamba2x3+attention"
DEMO_OPTIONS = ["-s", "validations=4", "-s", "valid_batches=8"]  # the rest of the time is for training
DEMO_RACE = ["race", "python-docs", "--models", DEMO_MODELS, "--budget", "15s", *DEMO_OPTIONS, "--out", DEMO]
DEMO_USE = ["generate", f"{DEMO}/winner", "--prompt", "The function returns", "--tokens", "300"]

WORKERS = str(max(1, min(8, os.cpu_count() or 1)))
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# torch.compile cannot follow the decorators that check shapes: the compiled tests run without them.
COMPILED = {**ONE_THREAD, "JAXTYPING_DISABLE": "1"}

# Triton's interpreter runs the GPU kernels on the CPU; it reads its variable where kernels are defined.
INTERPRETED = {**COMPILED, "TRITON_INTERPRET": "1"}

# Not the folder: what else lies there may need packages that this environment has not.
ADAPTERS = [f"tests/estimators/test_adapters_{library}.py" for library in ("neuralforecast", "sktime")]

# task: (dependency groups, commands as modules with their extra environment, run one after the other).
TASKS = {
    "setup": ([], []),
    "demo": ([], [(["hippodrome", *DEMO_RACE], {}), (["hippodrome", *DEMO_USE], {})]),
    "test": (
        ["test"],
        [
            (["pytest", "-n", WORKERS, "-m", "not compiled and not triton"], ONE_THREAD),
            (["pytest", "-n", WORKERS, "-m", "compiled"], COMPILED),
            (["pytest", "-n", WORKERS, "-m", "triton"], INTERPRETED),
        ],
    ),
    "lint": (
        ["lint", "test"],
        [(["ruff", "check", "."], {}), (["ruff", "format", "--check", "."], {}), (["mypy"], {})],
    ),
    "bench": (["bench"], [(["hippodrome", "bench"], {})]),
    "docs": (["docs"], [(["zensical", "build", "--clean"], {})]),
    "adapters": ([], [(["pytest", "-m", "adapters", *ADAPTERS], COMPILED)]),
}

# task: (folder of its environment, what it holds beside the project). Versions named here go before those of
# constraints.txt: sktime 1.2 wants a pandas before 3.1.
APART = {
    "adapters": (".venv-adapters", ["neuralforecast==3.3.0", "sktime==1.2.0", "pandas==3.0.6", "pytest"]),
}
BESIDE = []


class Problem(Exception):
    """What went wrong, as a sentence for the person at the keyboard."""


def say(sentence):
    """One line of progress."""
    print(f"[set-up] {sentence}", flush=True)


def dotted(version):
    """(3, 11) as 3.11."""
    return ".".join(str(part) for part in version)


def call(command):
    """Run a command and keep all it said, errors among the rest."""
    pipe = subprocess.PIPE
    return subprocess.run(
        command, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def move(task):
    """Take the environment that a task has of its own."""
    global VENV, PYTHON, STAMP, BESIDE
    folder, BESIDE = APART[task]
    places = [os.path.relpath(place, VENV) for place in (PYTHON, STAMP)]
    VENV = os.path.join(ROOT, folder)
    PYTHON, STAMP = (os.path.join(VENV, place) for place in places)


def constraints():
    """The file of versions for pip: the project's, without what an environment of its own has otherwise."""
    if not BESIDE:
        return "constraints.txt"
    own = {name.split("==")[0] for name in BESIDE if "==" in name}
    path = os.path.join(VENV, "constraints.txt")
    with open(os.path.join(ROOT, "constraints.txt"), encoding="utf-8") as file:
        lines = [line for line in file if line.split("==")[0].strip() not in own]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def find_python():
    """Run on with a newer Python of this machine when this one is too old; say so when there is none."""
    if sys.version_info >= OLDEST:
        return
    for minor in range(14, OLDEST[1] - 1, -1):
        path = shutil.which(f"python3.{minor}")
        if path and subprocess.call([path, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            raise SystemExit(subprocess.call([path, *sys.argv]))
    raise Problem(
        f"Python {dotted(OLDEST)} or newer is needed; {sys.executable} is {dotted(sys.version_info[:2])} and "
        "no newer one is on the PATH. Install one and name it: make demo PYTHON=/path/to/python3.12"
    )


def fingerprint():
    """A hash of everything that decides what is installed."""
    digest = hashlib.sha256(sys.version.encode())
    for name in INPUTS:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def read_stamp():
    """The stamp of the last complete installation; an empty one when there was none."""
    try:
        with open(STAMP, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {"inputs": "", "groups": []}


def make_venv():
    """Create `.venv`, anew when the one there is broken or of another Python."""
    if os.path.exists(PYTHON):
        answer = call([PYTHON, "-c", "import sys; print(*sys.version_info[:2], sep='.')"])
        if answer.stdout.strip() == dotted(sys.version_info[:2]):
            return
        say(f"the {os.path.basename(VENV)} here is broken or of another Python; it is made anew")
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise Problem(
                f"{sys.executable} lacks Python's own module {module}, which makes virtual environments. "
                "On Debian and Ubuntu: apt-get install python3-venv"
            )
    say(f"making {os.path.basename(VENV)} with Python {dotted(sys.version_info[:3])}")
    outcome = call([sys.executable, "-m", "venv", "--clear", VENV])
    if outcome.returncode:
        raise Problem(
            f"the virtual environment could not be made in {VENV}. Is the folder writable, has the disk "
            f"room, is python3-venv installed? venv said: {' '.join(outcome.stdout.split())[:600]}"
        )


def pip(*arguments):
    """Run pip of the environment; the outcome with all it said."""
    return call([PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments])


def explain(what, output):
    """The sentence for a failed installation, from pip's own last words."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-3:] or ["nothing"]
    if any(sign in output for sign in OFFLINE):
        hint = "No package index can be reached: is this machine online, is pip's mirror or proxy set?"
    elif "No space left" in output:
        hint = "The disk is full."
    elif "No matching distribution" in output:
        hint = f"No package index here has it for {sys.platform} and Python {dotted(sys.version_info[:2])}."
    else:
        again = f"Remove {os.path.basename(VENV)} and try again"
        hint = f"{again}; if it fails the same way, pip's words above say why."
        print(output, file=sys.stderr)
    return Problem(f"{what} could not be installed. {hint} pip said: {' '.join(errors)[:600]}")


def upgrade_pip():
    """Bring pip to a version that knows dependency groups."""
    words = pip("--version").stdout.split()
    version = tuple(int(part) for part in words[1].split(".")[:2]) if words[:1] == ["pip"] else (0, 0)
    if version < PIP:
        outcome = pip("install", "--quiet", "--upgrade", f"pip>={dotted(PIP)}")
        if outcome.returncode:
            raise explain(f"pip {dotted(PIP)}", outcome.stdout)


def has_gpu():
    """Whether an NVIDIA driver answers."""
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "GPU" in answer.stdout


def install_torch(index):
    """PyTorch first, on its own, so that nothing else decides which build comes."""
    have = call([PYTHON, "-c", "from importlib.metadata import version; print(version('torch'))"])
    if have.returncode == 0 and have.stdout.strip().split("+")[0] == TORCH:
        return
    plain, cpu = f"torch=={TORCH}", f"torch=={TORCH}+cpu"
    candidates = [plain] if has_gpu() or sys.platform == "darwin" else [cpu, plain]
    extra = ["--extra-index-url", index] if index else []
    for candidate in candidates:
        say(f"installing {candidate}")
        outcome = pip("install", "--quiet", "-c", "constraints.txt", *extra, candidate)
        if outcome.returncode == 0:
            return
        if candidate == cpu:
            say("no CPU build to be had; taking the plain one (on Linux it brings the CUDA libraries along)")
    raise explain("PyTorch", outcome.stdout)


def set_up(groups, index):
    """Install the project with the groups a task needs, unless the stamp says that this was done."""
    stamp, inputs = read_stamp(), fingerprint()
    same = stamp["inputs"] == inputs and os.path.exists(PYTHON)
    if same and set(groups) <= set(stamp["groups"]):
        return
    started = time.monotonic()
    make_venv()
    if os.path.exists(STAMP):
        os.remove(STAMP)  # an installation that is cut short must not count
    upgrade_pip()
    install_torch(index)
    wanted = sorted(set(groups) | set(stamp["groups"] if same else []))
    say(f"installing hippodrome{' and what it needs for: ' + ', '.join(wanted) if wanted else ''}")
    chosen = [word for group in wanted for word in ("--group", group)]
    outcome = pip("install", "--quiet", "-c", constraints(), "-e", ".", *BESIDE, *chosen)
    if outcome.returncode:
        raise explain("hippodrome", outcome.stdout)
    with open(STAMP + ".new", "w", encoding="utf-8") as file:
        json.dump({"inputs": inputs, "groups": wanted}, file)
    os.replace(STAMP + ".new", STAMP)
    say(f"ready after {time.monotonic() - started:.0f} s")


def run(commands, more):
    """The commands of a task, later ones also after one has failed; the first code that is not zero."""
    result = 0
    for command, variables in commands:
        shown = " ".join([*(f"{name}={value}" for name, value in variables.items()), *command, *more])
        print(f"\n$ {shown}", flush=True)
        code = subprocess.call([PYTHON, "-m", *command, *more], cwd=ROOT, env={**os.environ, **variables})
        if code:
            print(f"[failed with exit code {code}] {shown}", file=sys.stderr, flush=True)
            if command[0] == "hippodrome":  # the demo's second step uses what the first one made
                return code
        result = result or code
    return result


def main(words):
    """The command line: what follows ``--`` goes to the task's commands as it stands."""
    # Cut by hand: with an option between the task and --, argparse of some versions refuses what follows.
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--torch-index", default="", help="a package index that has CPU builds of torch")
    parser.epilog = "What follows -- goes to the task's commands."
    arguments = parser.parse_args(words[:cut])
    groups, commands = TASKS[arguments.task]
    try:
        find_python()
        if arguments.task in APART:
            move(arguments.task)
        set_up(groups, arguments.torch_index)
        return run(commands, words[cut + 1 :])
    except Problem as problem:
        print(f"bootstrap: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
