#!/usr/bin/env python3
"""Fails where two files of a crate need each other, directly or through others.

    scripts/circles.py [CRATE...]     all crates of the workspace, or these folders
    scripts/circles.py --self-test    plants circles and sees that they are found

What a file needs is read from its `use` and its paths (`crate::`, `super::`, `self::`, names of its modules); what
another file only re-exports belongs to the file that has it. A module's face (`x.rs` beside the folder `x/`, or
`x/mod.rs`) and the files in its folder may need each other. Tests may need anything.

Rust allows circles among the modules of a crate, and no tool of ours that is always installed finds them.
"""

import collections
import pathlib
import re
import sys
import tempfile

NEUTRAL = re.compile(
    r"""//[^\n]*                                  # comments
      | /\*.*?\*/
      | b?r(\#*)".*?"\1                           # raw strings
      | b?"(?:[^"\\]|\\.)*"                       # strings
      | b?'(?:[^'\\]|\\(?:u\{[^}]*\}|x..|.))'     # characters, which may be braces
    """,
    re.VERBOSE | re.DOTALL,
)
USE = re.compile(r"\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])((?:\w+)(?:\s*::\s*\w+)+)")


def main(arguments):
    if "-h" in arguments or "--help" in arguments:
        print(__doc__.strip())
        return 0
    if arguments == ["--self-test"]:
        return self_test()
    root = pathlib.Path(__file__).resolve().parent.parent
    members = re.search(r"^members = \[(.*?)\]", (root / "Cargo.toml").read_text(), re.DOTALL | re.MULTILINE)
    members = re.findall(r'"([^"]+)"', members[1])
    failed = False
    for name in arguments or members:
        for circle in circles(root / name / "src"):
            failed = True
            print(f"circles.py: {name}: these files need each other: {circle}", file=sys.stderr)
    return int(failed)


def circles(src):
    """Each circle of the crate in `src` as one line."""
    crate = Crate(src)
    found = []
    # Within a folder a file may need its face; nothing else may close a circle there.
    down = {one: {other for other in needs if one[: len(other)] != other} for one, needs in crate.needs.items()}
    # Across folders a face stands for its folder, and a circle that leaves the folder is one whoever closes it. (The
    # crate's root is everybody's face.)
    across = {one: {other for other in needs if other} for one, needs in crate.needs.items() if one}
    for needs, excused in ((down, False), (across, True)):
        for knot in knots(needs):
            faces = [one for one in knot if all(other[: len(one)] == one for other in knot)]
            if excused and faces:
                continue
            line = " <-> ".join(sorted(str(crate.files[one].relative_to(src)) for one in knot))
            if line not in found:
                found.append(line)
    return found


class Crate:
    """The modules of a crate: which file each is in, what it binds, and what its file needs."""

    def __init__(self, src):
        self.src = src
        self.files = {}  # module, as a tuple of names -> file
        self.texts = {}  # module -> code without comments, strings and tests
        self.bound = {}  # module -> {name: path} of its `use`
        self.globs = {}  # module -> paths of its `use x::*`
        root = src / "lib.rs" if (src / "lib.rs").exists() else src / "main.rs"
        self.read((), root)
        for module in self.files:
            self.bind(module)
        self.needs = {module: self.needs_of(module) for module in self.files}

    def read(self, module, path):
        text = without_tests(NEUTRAL.sub(" ", path.read_text()))
        self.files[module], self.texts[module] = path, text
        folder = path.parent if path.name in ("lib.rs", "main.rs", "mod.rs") else path.with_suffix("")
        for name in re.findall(r"\bmod\s+(\w+)\s*;", text):
            for child in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if child.exists():
                    self.read((*module, name), child)

    def bind(self, module):
        self.bound[module], self.globs[module] = {}, []
        for tree in USE.findall(self.texts[module]):
            for path, name in flat(tree):
                if name == "*":
                    self.globs[module].append(path)
                else:
                    self.bound[module][name] = path

    def needs_of(self, module):
        found = set()
        for tree in USE.findall(self.texts[module]):
            for path, _ in flat(tree):
                target = self.target(module, path)
                # To bring a module's name into scope is to need nothing yet; the paths that begin with it say what.
                if target is not None and not target.is_module:
                    found.add(target.module)
        for path in PATH.findall(USE.sub(";", self.texts[module])):
            target = self.target(module, re.split(r"\s*::\s*", path))
            if target is not None:
                found.add(target.module)
        return found - {module}

    def target(self, module, path, seen=frozenset()):
        """What `path` names when it stands in `module`; None outside of the crate."""
        if (module, tuple(path)) in seen:
            return None
        seen = seen | {(module, tuple(path))}
        first, rest = path[0], path[1:]
        if first == "crate":
            return self.within((), rest, seen)
        if first == "self":
            return self.within(module, rest, seen)
        if first == "super":
            return self.target(module[:-1], ["self", *rest], seen) if module else None
        if (*module, first) in self.files:
            return self.within((*module, first), rest, seen)
        named = self.bound[module].get(first)
        if named is not None and named != path[:1] and self.target(module, named, seen) is not None:
            return self.target(module, [*named, *rest], seen)
        return None

    def within(self, module, path, seen):
        if not path:
            return Target(module, True)
        name, rest = path[0], path[1:]
        if (*module, name) in self.files:
            return self.within((*module, name), rest, seen)
        if name in self.bound[module]:
            found = self.target(module, [*self.bound[module][name], *rest], seen)
            return Target(module, False) if found is None else found
        return Target(module, False)


Target = collections.namedtuple("Target", "module is_module")


def flat(tree, before=()):
    """The paths of a use tree, each with the name that it binds."""
    tree = tree.strip()
    if tree.startswith("{"):
        parts, depth, part = [], 0, ""
        for char in tree[1:-1]:
            depth += (char == "{") - (char == "}")
            if char == "," and depth == 0:
                parts.append(part)
                part = ""
            else:
                part += char
        return [found for part in [*parts, part] if part.strip() for found in flat(part, before)]
    head, brace, _ = tree.partition("{")
    if brace:
        names = [name.strip() for name in head.split("::") if name.strip()]
        return flat(tree[len(head) :], (*before, *names))
    path, _, alias = tree.partition(" as ")
    names = [*before, *(name.strip() for name in path.split("::") if name.strip())]
    if names[-1] == "*":
        return [(names[:-1], "*")]
    if names[-1] == "self" and 1 < len(names):
        names.pop()
    return [(names, alias.strip() or names[-1])]


def without_tests(text):
    """The code that is there without `cfg(test)`."""
    kept = ""
    while (at := text.find("#[cfg(test)]")) != -1:
        kept += text[:at]
        text = text[at + len("#[cfg(test)]") :]
        end = min(place for place in (text.find(";"), text.find("{"), len(text)) if place != -1)
        if text[end : end + 1] == "{":
            depth = 0
            for end in range(end, len(text)):
                depth += (text[end] == "{") - (text[end] == "}")
                if depth == 0:
                    break
        text = text[end + 1 :]
    return kept + text


def knots(needs):
    """The strongly connected parts of two or more (Tarjan's algorithm, with a stack of its own)."""
    order, low, on_stack, stack, found = {}, {}, set(), [], []
    for start in needs:
        if start in order:
            continue
        work = [(start, iter(sorted(needs[start])))]
        order[start] = low[start] = len(order)
        stack.append(start)
        on_stack.add(start)
        while work:
            one, others = work[-1]
            other = next(others, None)
            if other is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[one])
                if low[one] == order[one]:
                    knot = []
                    while not knot or knot[-1] != one:
                        knot.append(stack.pop())
                        on_stack.discard(knot[-1])
                    if 1 < len(knot):
                        found.append(knot)
            elif other not in order:
                order[other] = low[other] = len(order)
                stack.append(other)
                on_stack.add(other)
                work.append((other, iter(sorted(needs.get(other, ())))))
            elif other in on_stack:
                low[one] = min(low[one], order[other])
    return found


def self_test():
    cases = {
        "two files, by use and by a path": (
            {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::B;", "b.rs": "fn f() { crate::a::g(); }"},
            ["a.rs <-> b.rs"],
        ),
        "through a third": (
            {"lib.rs": "mod a; mod b; mod c;", "a.rs": "use super::{b}; fn f() { b::g(); }", "b.rs": "use super::c as d; fn g() { d::h(); }", "c.rs": "use crate::{a::A};"},
            ["a.rs <-> b.rs <-> c.rs"],
        ),
        "a name that a face only hands on": (
            {"lib.rs": "mod x;", "x.rs": "mod a; mod b; pub use b::B;", "x/a.rs": "use super::B;", "x/b.rs": "use super::a::A;"},
            ["x/a.rs <-> x/b.rs"],
        ),
        "out of a folder and back to its face": (
            {"lib.rs": "mod x; mod y;", "x.rs": "mod a; use crate::y::Y;", "x/a.rs": "use super::X;", "y.rs": "use crate::x::a::A;"},
            ["x.rs <-> x/a.rs <-> y.rs"],
        ),
        "a face and its children": (
            {"lib.rs": "mod x; pub struct L;", "x.rs": "mod a; mod b; use a::A;", "x/a.rs": "use super::X; use crate::L;", "x/b.rs": "use super::{X, a::A};"},
            [],
        ),
        "a module's name that is only the beginning of another's": (
            {"lib.rs": "mod x; mod y;", "x.rs": "mod a; mod b; use crate::y::Y;", "x/a.rs": "use crate::x::{self}; fn f() { x::b::g(); }", "x/b.rs": "", "y.rs": "use crate::x::a::A;"},
            [],
        ),
        "comments, strings and tests": (
            {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::B;", "b.rs": '// crate::a::A\nconst C: &str = "crate::a";\n#[cfg(test)]\nmod tests { use crate::a::A; }'},
            [],
        ),
    }
    failed = False
    for name, (files, expected) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            for file, text in files.items():
                path = pathlib.Path(folder) / file
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            found = circles(pathlib.Path(folder))
        if found != expected:
            failed = True
            print(f"circles.py: self-test: {name}: found {found}, not {expected}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
