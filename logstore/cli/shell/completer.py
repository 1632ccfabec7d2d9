"""Completer: words of the commands at a prompt, as a shell's completion has them."""

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import ShellComplete
from prompt_toolkit.completion import Completer, Completion

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document


class CommandCompleter(Completer):
    """Commands, options and names of tables, by what click knows of each command."""

    def __init__(self, group: click.Command) -> None:
        self._complete = ShellComplete(group, {}, "logstore", "")

    def get_completions(self, document: "Document", _event: "CompleteEvent") -> Iterable[Completion]:
        """Words that may stand at the cursor; none behind a quote that is open."""
        try:
            words = shlex.split(document.text_before_cursor)
        except ValueError:
            return
        begun = words.pop() if words and not document.text_before_cursor[-1].isspace() else ""
        for item in self._complete.get_completions(words, begun):
            if item.type == "plain":  # files are not completed here
                yield Completion(item.value, start_position=-len(begun), display_meta=item.help or "")
