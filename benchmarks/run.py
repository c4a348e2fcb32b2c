"""Sets up what the benchmarks need, and starts them: ``python3 benchmarks/run.py [--quick]``.

This file alone runs under any Python of the system, so it uses the standard library only.
The suite itself runs in an environment of its own, which is made on the first run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-bench"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / "installed.txt"
PACKAGES = ("starlette", "uvicorn", "uvloop", "httptools", "asgi-background", "matplotlib")


def main() -> NoReturn:
    """Prepare, and become the suite; the exit status is 2 where something is missing."""
    if not prepare():
        sys.exit(2)
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execv(PYTHON, (PYTHON, "-m", "benchmarks", *sys.argv[1:]))  # noqa: S606 - no shell wanted


def prepare() -> bool:
    """Make sure that all is there; if not, say what is missing and return False."""
    if not sys.platform.startswith("linux"):
        print("The benchmarks pin processes to cores and read /proc: they need Linux.")
        return False
    if shutil.which("wrk") is None:
        print("The load generator wrk is missing. Get it with: apt-get install wrk")
        return False
    if not is_current():
        print(f"Preparing {ENVIRONMENT.name} with {', '.join(PACKAGES)} and this checkout ...")
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        install = (PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
        if subprocess.run((*install, *PACKAGES, "--editable", ROOT), check=False).returncode:
            print("The packages could not be installed; pip has said above why.")
            return False
        STAMP.write_text(wanted())
    return True


def wanted() -> str:
    """Return a text that changes when the environment has to be made anew."""
    return "\n".join((sys.version, *PACKAGES, (ROOT / "pyproject.toml").read_text()))


def is_current() -> bool:
    """Whether the environment is there, and made for what is wanted now."""
    return STAMP.exists() and STAMP.read_text() == wanted()


if __name__ == "__main__":
    main()
