"""docs/wide_tables.md: its examples run as they stand; and wide rows by asyncio and commands, on a real store."""

import asyncio
import re
from pathlib import Path

import orjson
import pytest
import support_page
from support_contract import DEADLINE_MS
from support_page import examples, matches

from logstore import AsyncStore, NotWide, RowEdit, WideTable
from logstore.cli.main import run

PAGE = (Path(__file__).parent.parent / "docs" / "wide_tables.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def outputs(dev):
    """What each command of the page prints; its program runs where it stands, behind the first block of commands."""
    first, rest = PAGE.split("```python", 1)
    before = support_page.printed(first, dev.facts)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"DATA_DIR": str(dev.data), "BOOTSTRAP": "", "URL": "", "DEADLINE_MS": "30000"}.items():
            patch.setenv(f"LOGSTORE_{name}", value)
        for program in PROGRAMS:
            exec(program, {})
    return before[:-1] + support_page.printed(rest, dev.facts)


@pytest.mark.parametrize("number", range(len(examples(PAGE))))
def test_an_example_prints_what_the_page_says(outputs, number):
    command, says = examples(PAGE)[number]
    assert matches(says, outputs[number]), (command, outputs[number])


def test_many_tasks_edit_and_read_in_one_loop(dev, users):
    name = "wide-async"
    dev("table", "create", name, "--partitions", "2", "--wide", "--family", "f:versions=2")

    async def run_all():
        async with AsyncStore(dev.facts["bootstrap"], dev.facts["http"]) as store:
            counted = await asyncio.gather(*(store.edit(name, "hits", RowEdit().incr("f", "n", 2)) for _ in range(10)))
            assert {one.outcome for one in counted} == {"applied"}
            last = max(counted, key=lambda one: one.offset).token
            options = {"after": last, "deadline_ms": DEADLINE_MS}
            row = await store.get_row(name, "hits", ["f:n"], 2, **options)
            assert [int.from_bytes(cell.value) for cell in row.versions_of("f:n")] == [20, 18]
            assert [one and one.key for one in await store.get_rows(name, ["none", "hits"], **options)] == [
                None,
                b"hits",
            ]
            assert [one["f:n"] async for one in store.scan_rows(name, **options)] == [(20).to_bytes(8)]
            session = store.session()
            assert (await session.edit(name, "k", RowEdit().set("f", "a", "1"), absent=True)).applied
            assert (await session.get_row(name, "k", deadline_ms=DEADLINE_MS))["f:a"] == b"1"
            for wrong, call in (
                (WideTable, store.get(name, "hits", **options)), (NotWide, store.get_row(users, "k")),
                (NotWide, store.edit(users, "k", RowEdit().set("f", "a", "1"))),
            ):  # fmt: skip
                with pytest.raises(wrong):
                    await call

    asyncio.run(run_all())


@pytest.fixture
def command(dev, monkeypatch, capfd):
    for name, value in {"BOOTSTRAP": dev.facts["bootstrap"], "URL": dev.facts["http"], "DEADLINE_MS": "30000"}.items():
        monkeypatch.setenv(f"LOGSTORE_{name}", value)

    def call(*argv, status=0):
        assert run(list(argv)) == status, capfd.readouterr().err
        return capfd.readouterr()

    return call


def test_commands_edit_and_print_cells(dev, command):
    name = "wide-cli"
    dev("table", "create", name, "--partitions", "1", "--wide", "--family", "f:versions=2", "--family", "g")
    edit = [
        "--set",
        "f:a%2Cb=1",
        "--set",
        "f:x=1",
        "--append",
        "g:log=one",
        "--incr",
        "g:n=5",
        "--if",
        "absent",
        "--json",
    ]
    made = orjson.loads(command("edit", name, "k", *edit).out)
    assert (made["outcome"], made["version"]) == ("applied", 0)
    gone = command("edit", name, "k", "--del", "f:x", "--del-family", "g", "--set", "f:a%2Cb=2", "--if", "version:0")
    assert gone.out == "partition 0, offset 1\n"
    token = orjson.loads(command("edit", name, "l", "--set", "g:q=v", "--json").out)["token"]
    assert command("get", name, "k", "--token", token).out == "f:a,b\t1\t2\n"
    assert command("get", name, "k", "--versions", "2", "--columns", "f:a%2Cb").out == "f:a,b\t1\t2\nf:a,b\t0\t1\n"
    assert command("scan", name, "--token", token).out == "k\tf:a,b\t1\t2\nl\tg:q\t2\tv\n"
    assert command("scan", name, "--keys-only", "--token", token).out == "k\nl\n"
    shown = [orjson.loads(line) for line in command("scan", name, "--columns", "g:", "--json").out.splitlines()]
    assert [(one["key"], one["cells"][0]["value"]) for one in shown] == [("l", "v")]
    assert command("edit", name, "k", "--del-row").out == "partition 0, offset 3\n"
    wrong = [
        (["edit", name, "k"], 2, "changes nothing"), (["edit", name, "k", "--set", "f:a"], 2, "--set wants"),
        (["edit", name, "k", "--set", "f=v"], 2, "family:qualifier"),
        (["edit", name, "k", "--incr", "f:a=x"], 2, "a whole number"),
        (["edit", name, "k", "--set", "h:a=v"], 2, "it has f, g"),
        (["edit", name, "k", "--set", "f:a=v", "--if", "value:x"], 2, "no value"),
        (["edit", name, "l", "--set", "f:a=v", "--if", "absent"], 1, "the row has version 2"),
        (["get", name, "l", "--columns", "f"], 2, "family:qualifier"),
        (["get", name, "l", "--counter"], 1, "cell g:q is no counter"),
        (["scan", name, "--keys-only", "--columns", "f:"], 2, "--keys-only"),
    ]  # fmt: skip
    for argv, status, says in wrong:
        assert says in command(*argv, status=status).err, argv
