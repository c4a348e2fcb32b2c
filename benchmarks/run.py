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
PROGRAMS = {
    "wrk": ("The load generator", "wrk"),
    "redis-server": ("What the queues keep their jobs in", "redis-server"),
    "postgres": ("What Procrastinate keeps its jobs in", "postgresql"),
}
"""What they are for, and the packages that have them."""

PLACES = (os.environ.get("PATH", os.defpath), *map(str, Path("/usr/lib/postgresql").glob("*/bin")))
SERVER = ("starlette", "uvicorn", "uvloop", "httptools")
PACKAGES = (
    *(*SERVER, "asgi-background", "matplotlib"),
    *("fastapi", "fastapi-jobs", "fastapi-taskflow"),
    *("celery[redis]", "taskiq", "taskiq-redis", "hiredis"),
    *("procrastinate", "psycopg[binary]"),
    *("opentelemetry-sdk", "prometheus-client"),
)
APART = {"arq": (*SERVER, "arq"), "saq": (*SERVER, "saq[hiredis,redis]")}
"""What has an environment of its own in that environment: it wants another client of Redis."""

CHECKOUT = ("--editable", str(ROOT))
WITH_CHECKOUT = ("arq",)
"""Which of those need this checkout, too."""


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
    if sys.version_info < (3, 11):
        print("Some of the packages compared need Python 3.11 or newer; start this with such.")
        return False
    for program, (purpose, package) in PROGRAMS.items():
        if shutil.which(program, path=os.pathsep.join(PLACES)) is None:
            print(f"{purpose}, {program}, is missing. Get it with: apt-get install {package}")
            return False
    if not is_current():
        names = sorted({*PACKAGES, *(name for names in APART.values() for name in names)})
        print(f"Preparing {ENVIRONMENT.name} with {', '.join(names)} and this checkout ...")
        if not (
            install(ENVIRONMENT, *PACKAGES, *CHECKOUT)
            and all(
                install(
                    ENVIRONMENT / name, *APART[name], *(CHECKOUT if name in WITH_CHECKOUT else ())
                )
                for name in APART
            )
        ):
            print("The packages could not be installed; pip has said above why.")
            return False
        STAMP.write_text(wanted())
    return True


def install(environment: Path, *packages: str) -> bool:
    """Make an environment with packages, in place of the one that was there."""
    venv.create(environment, with_pip=True, clear=True)
    pip = (environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
    # An old one tries many more versions of packages than it has to.
    return all(
        subprocess.run((*pip, "install", "-qq", *names), check=False).returncode == 0
        for names in (("--upgrade", "pip"), packages)
    )


def wanted() -> str:
    """Return a text that changes when the environment has to be made anew."""
    apart = (f"{name}: {', '.join(packages)}" for name, packages in APART.items())
    return "\n".join((sys.version, *PACKAGES, *apart, (ROOT / "pyproject.toml").read_text()))


def is_current() -> bool:
    """Whether the environment is there, and made for what is wanted now."""
    return STAMP.exists() and STAMP.read_text() == wanted()


if __name__ == "__main__":
    main()
