#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = []
# ///
"""Every file and every test that our pages name exists.

    scripts/check-paths.py                looks at README.md, ARCHITECTURE.md, docs/*.md, results/README.md, */README.md
    scripts/check-paths.py --self-test    first sees that names which are wrong are found

Looks at links, at words in backticks, and at the scripts that commands run. `bench/src/site.rs` is looked for from the root
or from the page's folder, `uring/sending.rs` at the end of any path, `tests_of_five_words_or_more` in any Rust file. Exits
with 1 where something is missing.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "ARCHITECTURE.md", "docs/*.md", "results/README.md", "*/README.md", "scripts/*/README.md"]
SOURCE = (".rs", ".sh", ".py", ".c")


def main(arguments):
    if arguments not in ([], ["--self-test"]):
        sys.exit(__doc__)
    house = House()
    if arguments:
        self_test(house)
    pages = sorted({page for pattern in PAGES for page in ROOT.glob(pattern)})
    missing = [(page, name) for page in pages for name in house.missing(page.read_text(), page.parent)]
    for page, name in missing:
        print(f"check-paths.py: {page.relative_to(ROOT)} names {name}, which is not there", file=sys.stderr)
    return int(bool(missing))


class House:
    """What there is."""

    def __init__(self):
        self.top = {path.name for path in ROOT.iterdir()} - {"target"}
        folders = [ROOT / name for name in self.top if name[0] != "." and (ROOT / name).is_dir()]
        files = [path for folder in folders for path in folder.rglob("*") if "target" not in path.parts]
        self.ends = ["/" + path.relative_to(ROOT).as_posix() for path in files]
        rust = [path.read_text() for path in files if path.suffix == ".rs"]
        self.words = {word for text in rust for word in re.findall(r"\w+", text)}

    def missing(self, text, folder):
        """What a page in this folder names that is not there, in the order of the page."""
        # What a command of an example runs, and what stands in backticks or links.
        plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        scripts = re.findall(r"(?<![\w/.])(?:\./)?(scripts/[\w./-]*\w)", text)
        links = [target for target in re.findall(r"\]\(([^)#]+)", plain) if "://" not in target]
        spans = [span.split()[0] for span in re.findall(r"`([^`\n]+)`", plain) if span.split()]
        named = [name for name in scripts + spans if not self.has(name, folder)]
        return named + [link for link in links if not (folder / link).exists()]

    def has(self, name, folder):
        """Whether it is there, or is no name of ours."""
        if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+){4,}", name):
            return name in self.words
        if not re.fullmatch(r"[\w.*/-]+", name) or name.startswith("/"):
            return True
        ours = "/" in name and name.split("/")[0] in self.top
        placeholder = re.search(r"[A-Z]{3}|\.\.\.", name.replace("README", "").replace("ARCHITECTURE", ""))
        if not ours and not name.endswith(SOURCE) or placeholder:
            return True
        if any(True for _ in ROOT.glob(name.rstrip("/"))) or any(True for _ in folder.glob(name.rstrip("/"))):
            return True
        return not ours and any(end.endswith("/" + name) for end in self.ends)


def self_test(house):
    wrong = {
        "`ring/src/turns.rs`": 1,
        "see `nowhere.rs` and [this](nowhere.md)": 2,
        "    ./scripts/nothing.sh --flag": 1,
        "`a_test_that_nobody_ever_wrote`": 1,
        "`ring/src/slot.rs`, `uring/sending.rs`, `docs/*.md`, `results/DATE/MACHINE/compare-001`, `a/b`, `io_uring`": 0,
    }
    for text, count in wrong.items():
        found = house.missing(text, ROOT)
        if len(found) != count:
            sys.exit(f"check-paths.py: the self-test found {found} in {text!r} where {count} are missing")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
