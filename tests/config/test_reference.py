"""Each key is documented in one place, and shown wherever somebody may look for it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from server.config import ENVIRONMENT, OTHER_VARIABLES, Config, Sections, load
from server.config.keys import Key, Section, documentation, sections
from server.config.reference import fill, template
from server.config.sections import ServerSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "server" / "README.md").read_text(encoding="utf-8")
KEYS = [key for section in sections() for key in section.keys]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_each_key_is_documented_beside_its_field(key: Key) -> None:
    assert re.match(r"[A-Z`].*[.)?]$", key.text), f"{key.name} needs a `#:` comment above it: whole sentences"


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.name)
def test_each_section_says_what_it_is_about(section: Section) -> None:
    assert section.text


def test_the_keys_are_those_that_are_read() -> None:
    """The catalogue and msgspec agree on the names of what a file may hold."""
    for section in (section for section in sections() if section.name.isidentifier()):
        kind = type(getattr(Sections(), section.name))
        own = {key.leaf for key in section.keys}
        tables = {
            other.name.removeprefix(f"{section.name}.").rstrip("[].*") for other in sections() if "." in other.name
        }
        assert own | (tables & {*kind.__struct_fields__}) == {*kind.__struct_fields__}


def test_each_variable_sets_a_key_that_there_is() -> None:
    assert {variable.key for variable in ENVIRONMENT.values()} <= {key.name for key in KEYS}
    assert {key.variable for key in KEYS} - {None} == {*ENVIRONMENT}


def test_comments_stand_right_above_their_field() -> None:
    assert documentation(ServerSettings)["port"] == "The port to listen on; 0 takes a free one."
    assert documentation(int) == documentation(msgspec.defstruct("Made", ["port"])) == {}


# --- the file to start from


def test_the_file_configures_nothing_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text(template(), encoding="utf-8")
    assert load(environ={}, file=file) == msgspec.structs.replace(
        Config(file=file), sources=load(environ={}, file=file).sources
    )
    plain = {section.name for section in sections() if section.name.isidentifier()}
    assert tomllib.loads(template()).keys() == plain, "of the others there may be many: they are commented out"
    assert {re.split(r"[.\[]", section.name)[0] for section in sections()} == {*Sections.__struct_fields__}


def test_with_every_default_let_in_it_says_the_same(tmp_path: Path) -> None:
    """Keys without a default show an example, which is not taken here; nor are tables of which there may be many."""
    lines = []
    skipped = False
    header = ""
    for line in template().splitlines():
        if re.match(r"#?\[", line):
            header = line.strip("#[]")
            skipped = line.startswith("#")
        key = re.match(r"#(\w+) = ", line)
        if key and not skipped:
            found = next(one for one in KEYS if one.name == f"{header}.{key[1]}")
            lines.append(line.removeprefix("#") if found.default is not None else line)
        else:
            lines.append(line)
    file = tmp_path / "parley.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    config = load(environ={}, file=file)
    standard = Config()
    assert [getattr(config, name) for name in Sections.__struct_fields__] == [
        getattr(standard, name) for name in Sections.__struct_fields__
    ]
    assert len([key for key in config.sources if "." in key]) > len(KEYS) / 2


def test_every_key_of_the_file_can_be_let_in(tmp_path: Path) -> None:
    """With all marks gone it is still TOML, and each key is one that there is."""
    text = re.sub(r"^#(?=\[|\w+ = )", "", template(), flags=re.MULTILINE)
    values = tomllib.loads(text)
    assert values["database"]["url"].startswith("postgresql://")
    assert {*values["agents"]["overrides"]["TYPE"]} == {
        key.leaf for key in KEYS if key.name.startswith("agents.overrides.*.")
    }
    assert len(re.findall(r"^\w+ = ", text, re.MULTILINE)) == len(KEYS)


def test_lines_of_the_file_are_short_but_for_values() -> None:
    assert [line for line in template().splitlines() if len(line) > 120 and not re.match(r"#\w+ = ", line)] == []


# --- documents


def test_the_readme_has_all_keys_as_they_are() -> None:
    assert fill(README) == README, "run `python -m server.config.reference`"
    table = README.partition("<!-- table: configuration -->")[2].partition("<!-- end -->")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [key.leaf for key in KEYS]


def test_a_table_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError):
        fill("<!-- table: nonsense -->\n<!-- end -->")


def test_the_help_of_the_server_names_all_variables(capsys: pytest.CaptureFixture[str]) -> None:
    from server.cli import serve

    named = set(re.findall(r"PARLEY_[A-Z_]+", serve._DETAILS))
    assert named == {*ENVIRONMENT, "PARLEY_CONFIG"}


def test_variables_of_other_commands_are_known() -> None:
    """A variable that any of our code reads is no stranger to `parley check`."""
    texts = [
        path.read_text(encoding="utf-8")
        for name in ("server", "protocol", "storage")
        for path in (ROOT / name).rglob("*.py")
    ]
    read = {name for text in texts for name in re.findall(r"environ[^\n]*\"(PARLEY_[A-Z_]+)\"", text)}
    assert read <= {*ENVIRONMENT, *OTHER_VARIABLES, "PARLEY_CONFIG"}
