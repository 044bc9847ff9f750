"""Updates the known-good versions: the list in pyproject.toml (for uv) and constraints.txt (for pip).

Run it with `make constraints`. uv resolves the ranges of pyproject.toml again, for all supported Pythons and platforms;
only lines marked "held" keep their version. CUDA libraries are left out, because each build of torch pins its own.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(    # known good: begin\n).*?(    # known good: end\n)", re.DOTALL)
LEFT_TO_TORCH = ("nvidia-", "cuda-", "triton")
HEADER = """\
# Versions known to work together: pip install -e '.[dev]' -c constraints.txt
# Written by `make constraints`; the same versions are listed for uv in pyproject.toml.
"""


def newest_that_fit(pyproject: str) -> list[str]:
    """Returns lines `name==version` or `name==version ; marker`, resolved without the current list."""
    uv = os.environ.get("UV", "uv")  # `uv run` sets this to its own path
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text(BLOCK.sub(r"\1\2", pyproject), encoding="utf-8")
        Path(folder, "README.md").touch()
        flags = "--quiet --all-extras --no-hashes --no-annotate --no-header --no-emit-project"
        command = [uv, "export", "--directory", folder, *flags.split()]
        exported = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line for line in exported.splitlines() if not line.startswith(LEFT_TO_TORCH)]
    lines = [line for line in lines if "sys_platform == 'emscripten'" not in line]
    names = [line.partition("==")[0] for line in lines]
    # A marker matters only if a package has two versions; otherwise an unused constraint has no effect.
    return [
        line if names.count(name) > 1 else line.partition(" ; ")[0] for name, line in zip(names, lines, strict=True)
    ]


def main() -> None:
    path = ROOT / "pyproject.toml"
    pyproject = path.read_text(encoding="utf-8")
    if not BLOCK.search(pyproject):
        raise SystemExit("pyproject.toml has no 'known good: begin' and 'known good: end' lines")
    lines = newest_that_fit(pyproject)
    held = {name for name, _ in re.findall(r'"([\w.-]+)==(\S+)",\s*# held', pyproject)}
    listed = "".join(f'    "{line}",\n' for line in lines if line.partition("==")[0] not in held)
    path.write_text(BLOCK.sub(lambda block: block[1] + listed + block[2], pyproject), encoding="utf-8")
    (ROOT / "constraints.txt").write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} versions written to pyproject.toml and constraints.txt")


if __name__ == "__main__":
    main()
