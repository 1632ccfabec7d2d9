"""The shell: commands one after the other at a prompt, with completion and a history."""
