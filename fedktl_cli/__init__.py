"""The terminal of fedktl and nothing else: commands, output, exit codes."""

from stages.environment import settle

settle()  # before any library is imported, Typer included
