"""Types of what is public: ``python tests/types_complete.py``. Stubs agree with what was compiled,
and pyright knows at least 98 % of the public symbols. Needs mypy and pyright.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
STUBS = ("runtime", "optimizers", "sequence_float32", "sequence_float64")
LEAST = 0.98


def main() -> None:
    """Print the score; end with an error if it is too low or a stub is wrong."""
    subprocess.run(
        [
            *(sys.executable, "-m", "mypy.stubtest", *(f"fastlstm._core.{s}" for s in STUBS)),
            *("--mypy-config-file", str(HERE.parent / "pyproject.toml")),
            *("--allowlist", str(HERE / "stubtest_allowlist.txt"), "--ignore-unused-allowlist"),
        ],
        check=True,
    )
    found = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--verifytypes", "fastlstm"),
            *("--ignoreexternal", "--outputjson"),
        ],
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
    )
    report = json.loads(found.stdout)["typeCompleteness"]
    for symbol in report["symbols"]:
        if symbol["isExported"] and not symbol["isTypeKnown"]:
            print("not known:", symbol["name"])
    print(f"type completeness: {report['completenessScore']:.1%}, wanted: {LEAST:.0%}")
    if report["completenessScore"] < LEAST:
        sys.exit(1)


if __name__ == "__main__":
    main()
