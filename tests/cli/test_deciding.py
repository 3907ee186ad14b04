"""What a chat asks its user about, what counts as an answer, and what is shown; without a terminal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest

from protocol.commands import Remember
from protocol.durable import ApprovalRequired, ApprovalResolved, TaskCompleted
from protocol.errors import ErrorCode, ParleyError
from protocol.events import ResyncRequired, Usage
from server.cli.chat.approving import Approving
from server.cli.chat.deciding import Answer, Desk, FollowUp, answer_of, automatic, decide, keys_of, rule_for
from server.cli.chat.editing import EditError, editor, in_editor, read
from server.cli.chat.showing import lines_of, question_lines
from server.cli.tools import Workspace

ONE, TWO = UUID(int=1), UUID(int=2)


def asked(name: str = "write_file", arguments: Any = None, call_id: str = "c", **more: Any) -> ApprovalRequired:
    more.setdefault("allowed_decisions", ["approve", "edit", "reject", "respond"])
    more.setdefault("turn_id", ONE)
    return ApprovalRequired(
        approval_id=ONE,
        call_id=call_id,
        message_id=ONE,
        name=name,
        arguments={"path": "a"} if arguments is None else arguments,
        arguments_hash="h",
        expires_at=None,
        **more,
    )


# --- answers


@pytest.mark.feature("A03")
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("y", Answer("approve")),
        (" YES ", Answer("approve")),
        ("a", Answer("always")),
        ("e", Answer("edit")),
        ("n", Answer("reject")),
        ("no, never", None),
        ("n  use tabs instead", Answer("reject", "use tabs instead")),
        ("r it says 42", Answer("respond", "it says 42")),
        ("r", None),
        ("yes but not that one", None),
        ("y.", None),
        ("approve", None),
        ("", None),
        ("ye", None),
    ],
)
def test_what_is_an_answer_and_what_is_a_message(text: str, answer: Answer | None) -> None:
    assert answer_of(text, asked()) == answer


def test_only_what_is_allowed_is_an_answer() -> None:
    only = asked(allowed_decisions=["reject"])
    assert [answer_of(text, only) for text in ("y", "a", "e", "r x")] == [None] * 4
    assert keys_of(only) == "n [WHY] no"
    assert answer_of("n", asked(allowed_decisions=["approve"])) is None


def test_always_means_the_tool_but_of_commands_this_one() -> None:
    assert rule_for(asked()) == Remember(scope="session", tool="write_file")
    command = asked("execute_command", {"command": "make test"})
    assert rule_for(command) == Remember(scope="session", tool="execute_command", arguments={"command": "make test"})
    assert "a always this command" in keys_of(command)
    unclear: list[Any] = [{"command": "rm *"}, {"command": 1}, [], {}]
    for arguments in unclear:
        vague = asked("execute_command", arguments)
        assert (rule_for(vague), answer_of("a", vague)) == (None, None)
        assert "always" not in keys_of(vague)


def test_who_decides_when_nobody_is_asked() -> None:
    decisions = {how: (automatic(how, asked("read_file")), automatic(how, asked())) for how in get_args(Approving)}
    nobody = Answer("reject", "nobody is there to approve it")
    assert decisions == {
        "ask": (None, None),
        "wait": (None, None),
        "never": (nobody, nobody),
        "reads": (Answer("approve"), nobody),
        "all": (Answer("approve"), Answer("approve")),
    }


# --- the desk


def test_one_is_asked_after_the_other_and_what_is_settled_is_not_asked() -> None:
    desk = Desk()
    first, second, other = asked(call_id="a"), asked(call_id="b"), asked(call_id="c", turn_id=TWO)
    for one in (first, second, first, other):
        desk.take(one)
    assert (desk.current, len(desk)) == (first, 3)
    assert desk.alike(first) == [second, other]
    desk.take(
        ApprovalResolved(approval_id=ONE, call_id="a", turn_id=ONE, decision="approve", cause="person", client_id="x")
    )
    assert desk.current is second
    usage = Usage()
    desk.take(TaskCompleted(turn_id=ONE, status="cancelled", usage=usage, steps=1, duration_ms=1))
    assert desk.current is other
    desk.take(ResyncRequired(reason="trimmed", cursor="e.1"))
    assert desk.current is None


async def test_a_question_of_an_agents_is_answered_by_words_or_numbers() -> None:
    for text, answer in (("2", "blue"), (" red ", "red"), ("3", "3"), ("0", "0"), ("²", "²"), ("green", "green")):
        question = Desk().ask("Which?", ["red", "blue"])
        question.take(text)
        question.take("again")
        assert await question.answer == answer


class Refusing:
    """A client whose server refuses."""

    def __init__(self, code: ErrorCode) -> None:
        self._code = code

    async def approve(self, call_id: str, *, remember: Remember | None = None) -> None:
        raise ParleyError(self._code, "ada rejected it")


async def test_that_somebody_was_quicker_is_told_and_no_trouble() -> None:
    late: Any = Refusing(ErrorCode.ALREADY_RESOLVED)
    assert "was decided already: ada rejected it" in await decide(late, asked(), Answer("approve"))
    broken: Any = Refusing(ErrorCode.FORBIDDEN)
    with pytest.raises(ParleyError):
        await decide(broken, asked(), Answer("approve"))


# --- what is shown


def shown(approval: ApprovalRequired, workspace: Workspace | None = None) -> list[str]:
    return [line.text for line in lines_of(approval, workspace)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "a").write_text("".join(f"{number}\n" for number in range(500)))
    return Workspace(tmp_path)


@pytest.mark.feature("A03")
def test_a_change_is_shown_as_a_difference(workspace: Workspace) -> None:
    new = "".join(f"{number}\n" for number in range(500) if number != 250)
    lines = shown(asked(arguments={"path": "a", "content": new, "backup": True}, reason="because"), workspace)
    assert lines[:3] == ["? the agent wants to call write_file", "  because", "  a   (backup=true)"]
    assert lines[3:] == ["  @@ -249,5 +249,4 @@", "   248", "   249", "  -250", "   251", "   252"]
    same = (workspace.root / "a").read_text()
    assert shown(asked(arguments={"path": "a", "content": same}), workspace)[-1] == "  (the file says that already)"
    # Of what is new, or cannot be read from here, there is only what it will be.
    for path, where in (("new", workspace), ("../a", workspace), ("a", None)):
        assert shown(asked(arguments={"path": path, "content": "x\ny"}), where)[-2:] == ["  + x", "  + y"]
    workspace.close()


def test_what_is_long_is_cut_and_what_is_harmful_left_out() -> None:
    lines = shown(asked(arguments={"path": "a\x1b[2J", "content": "\x1b]0;x\x07\n" * 500 + "z" * 10_000}))
    assert len(lines) == 62
    assert lines[-1] == "  … 442 more lines"
    attack = asked("sh\x1bell\n", {"\x1b[31mx": "\u202e"}, agent_type="\x1b[2J", rule="r\x07", reason="\x9b2J")
    nobody: Any = None
    hostile = [
        *shown(attack),
        *shown(asked("execute_command", {"command": "ls\x1b[2J\nrm -rf \x07", "cwd": "\x1b"})),
        *shown(asked(arguments="\x1b[2J")),
        *[line.text for line in question_lines(FollowUp("\x1b]0;x\x07 why\n?", ["\x1b[2J"], nobody))],
        *lines,
    ]
    assert not [line for line in hostile if any(char in line for char in "\x1b\x07\x9b\u202e\n")]
    assert max(map(len, hostile)) <= 400


# --- other arguments


def test_arguments_have_to_fit() -> None:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    one = asked(parameters=schema)
    assert read('{"path": "b"}', one) == {"path": "b"}
    for text, words in (
        ("{", "no JSON"),
        ("[]", "are an object"),
        ('{"path": 1}', "path"),
        ("{}", "path"),
        ("[" * 100_000, "no JSON"),
    ):
        with pytest.raises(EditError, match=words):
            read(text, one)


async def test_editors_that_fail_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, command in (("", None), ("code --wait", ["code", "--wait"]), ("'", None)):
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", value)
        assert editor() == command
    assert await asyncio.to_thread(in_editor, ["false"], "{}", asked()) == ""
    assert await asyncio.to_thread(in_editor, ["true"], '{"a": 1}', asked()) == '{"a": 1}'
    with pytest.raises(EditError, match="no-such-editor cannot be started"):
        in_editor(["no-such-editor"], "{}", asked())
