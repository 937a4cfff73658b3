"""What Compose makes of its files before it starts anything: YAML, values from `.env`, one file laid over another.

Source: the Compose specification, sections Interpolation and Merge.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OPERATOR = re.compile(r":?[-?+]")
# A later file's value of these keys replaces an earlier one's; other lists are appended.
REPLACED = ("command", "entrypoint", "test")


class Mistake(Exception):
    """What Compose would refuse."""


class Reset:
    """`!reset`: the key is taken away."""


@dataclass
class Override:
    """`!override`: the value replaces the earlier file's instead of being merged with it."""

    value: Any


class Constructor(SafeConstructor):
    """YAML's own values and Compose's two tags."""

    def override(self, node: Any) -> Override:
        if isinstance(node, MappingNode):
            return Override(self.construct_mapping(node, deep=True))
        if isinstance(node, SequenceNode):
            return Override(self.construct_sequence(node, deep=True))
        return Override(self.construct_scalar(node))

    def reset(self, _node: Any) -> Reset:
        return Reset()


Constructor.add_constructor("!override", Constructor.override)
Constructor.add_constructor("!reset", Constructor.reset)


def load(path: Path) -> dict[str, Any]:
    """Raises Mistake: not YAML, a key twice, an unknown tag, or no mapping."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    try:
        document = yaml.load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        raise Mistake(f"{at}{getattr(error, 'problem', error)}") from error
    if not isinstance(document, dict):
        raise Mistake("it is no mapping; a Compose file begins with `services:`")
    return document


@dataclass
class Variable:
    """One place that names a variable."""

    name: str
    operator: str = ""  # "", "-", ":-", "?", ":?", "+" or ":+"
    argument: str = ""

    @property
    def has_default(self) -> bool:
        return "-" in self.operator or "+" in self.operator

    @property
    def is_required(self) -> bool:
        return "?" in self.operator


@dataclass
class Interpolation:
    """Puts values in place of `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${NAME:+instead}`."""

    values: dict[str, str]
    variables: list[Variable] = field(default_factory=list)

    def document(self, value: Any) -> Any:
        """Of every value of a document; keys stay as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.document(item) for item in value]
        if isinstance(value, dict):
            return {key: self.document(item) for key, item in value.items()}
        if isinstance(value, Override):
            return Override(self.document(value.value))
        return value

    def text(self, text: str) -> str:
        out, at = [], 0
        while (dollar := text.find("$", at)) >= 0:
            out.append(text[at:dollar])
            rest = text[dollar + 1 :]
            if rest.startswith("$"):
                out.append("$")
                at = dollar + 2
            elif rest.startswith("{"):
                inner = rest[1 : closing_brace(text, rest)]
                out.append(self.braced(text, inner))
                at = dollar + 3 + len(inner)
            elif name := NAME.match(rest):
                out.append(self.value(Variable(name.group())))
                at = dollar + 1 + name.end()
            else:
                raise Mistake(f"`{text}` has a $ that begins no variable; write $$ for one")
        return "".join(out) + text[at:]

    def braced(self, text: str, inner: str) -> str:
        name = NAME.match(inner)
        operator = name and OPERATOR.match(inner, name.end())
        if not name or not (operator or name.end() == len(inner)):
            raise Mistake(f"`{text}` has ${{{inner}}}, which Compose does not understand")
        if not operator:
            return self.value(Variable(name.group()))
        return self.value(Variable(name.group(), operator.group(), inner[operator.end() :]))

    def value(self, variable: Variable) -> str:
        self.variables.append(variable)
        value = self.values.get(variable.name)
        # Also what is not taken is looked at: its variables have to be known too.
        instead = self.text(variable.argument)
        is_set = value is not None and (bool(value) or not variable.operator.startswith(":"))
        if "+" in variable.operator:
            return instead if is_set else ""
        if is_set:
            return value or ""
        return instead if variable.has_default else ""


def closing_brace(text: str, rest: str) -> int:
    depth = 0
    for at, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return at
    raise Mistake(f"`{text}` has a ${{ that is not closed")


def merge(base: Any, over: Any, key: str = "") -> Any:
    """`over` laid over `base`, as `-f base -f over` does."""
    if isinstance(over, Override):
        return over.value
    if isinstance(base, list) and isinstance(over, list) and key not in REPLACED:
        return base + [item for item in over if item not in base]
    if not isinstance(over, dict):
        return over
    merged = dict(base) if isinstance(base, dict) else {}
    for name, value in over.items():
        if isinstance(value, Reset):
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value, name)
    return merged


@dataclass
class Example:
    """A `.env.example`, to be copied to `.env`."""

    values: dict[str, str]
    # Named in a line that is a comment: `#NAME=value` shows a default that may be changed.
    commented: set[str]

    @staticmethod
    def read(path: Path) -> "Example":
        example = Example({}, set())
        if not path.exists():
            return example
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if named := re.match(r"#\s?([A-Z][A-Z0-9_]*)=", line):
                example.commented.add(named.group(1))
                continue
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, equals, value = line.removeprefix("export ").partition("=")
            if not equals or not NAME.fullmatch(name):
                raise Mistake(f"line {number}: `{line}` is not NAME=value")
            if name in example.values:
                raise Mistake(f"line {number}: {name} is there twice")
            example.values[name] = value.strip().strip("\"'")
        return example

    @property
    def names(self) -> set[str]:
        return self.commented | set(self.values)
