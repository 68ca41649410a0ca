"""A trainer package that takes a moment, and tells on whose behalf it ran: one line for each run, from whatever service."""
from __future__ import annotations

import json
import sys
from pathlib import Path

VERSION = "small-1"
TRAINER = f"small/trainer:{VERSION}"
# "wait" trains until somebody says go; "fill" writes as much as it is told. What it prints tells its name.
SCRIPT = """
import json, os, sys, time, zipfile
from pathlib import Path
inputs, package, output = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), Path(sys.argv[3])
with (package / "runs.txt").open("a") as runs:
    runs.write(f"{inputs['name']} {os.getpid()}\\n")
print("training of", inputs["name"], flush=True)
while inputs["kind"] == "wait" and not (package / f"go-{inputs['name']}").exists():
    time.sleep(0.05)
with zipfile.ZipFile(output, "w") as archive:
    archive.writestr("weights.bin", b"w" * inputs["size"])
"""
MANIFEST = f"""
name = "small/trainer"
versions = ["{VERSION}"]
command = {json.dumps([sys.executable, "{package}/train.py", "{inputs}", "{package}", "{output}/output.zip"])}
[inputs.name]
[inputs.kind]
type = "choice"
choices = ["quick", "wait"]
default = "quick"
[inputs.size]
type = "integer"
default = 1000
[inputs.instance_data]
type = "url"
"""


class SmallTrainer:
    """The package, and what its runs have left. It has to be there when the service starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "small"
        self.folder.mkdir(parents=True)
        (self.folder / "train.py").write_text(SCRIPT, encoding="utf-8")
        (self.folder / "trainer.toml").write_text(MANIFEST, encoding="utf-8")

    def runs(self, name: str) -> list[int]:
        """The process of each run for the training of this name."""
        path = self.folder / "runs.txt"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == name]

    def go(self, name: str) -> None:
        """Let the training of this name come to its end."""
        (self.folder / f"go-{name}").touch()
