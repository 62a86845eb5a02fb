"""The session's git repository: a commit per experiment, the branch advances only on a keep.

It is a view of the journal: everything in it can be rebuilt from the records, and is, when a kill came between the two.
Agent code never runs inside it; git runs no hooks, reads nothing of the user's settings, and gets every text that a
researcher wrote through standard input, never as an argument.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

import git

from harness.errors import HarnessError

FILE = "train.py"
BRANCH = "refs/heads/main"
EXPERIMENTS = "refs/experiments/"
SAFE_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TEMPLATE_DIR": "",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "bpbench",
    "GIT_AUTHOR_EMAIL": "bpbench@localhost",
    "GIT_COMMITTER_NAME": "bpbench",
    "GIT_COMMITTER_EMAIL": "bpbench@localhost",
}


class Workspace:
    """`main` holds the incumbent; every experiment stays reachable under refs/experiments/."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.git = git.Git(folder)
        self.git.update_environment(**SAFE_GIT)
        try:
            if not (folder / ".git").is_dir():
                self.git.init("--quiet", "--initial-branch=main")
                self.git.config("core.hooksPath", os.devnull)
                self.git.config("core.autocrlf", "false")
        except git.GitCommandNotFound as error:
            raise HarnessError("git is not installed: install git 2.28 or newer") from error
        except git.GitCommandError as error:
            raise HarnessError(f"{folder}: git init failed ({error.stderr.strip()}); use git 2.28 or newer") from error

    def commit_stock(self, source: str, time: float) -> str:
        """The first commit, made once; its id."""
        if not self._exists(BRANCH):
            self._move_branch(self._commit(source, "Stock train.py", None, time))
        return str(self.git.rev_list("--max-parents=0", BRANCH))

    def commit_experiment(self, index: int, source: str, message: str, time: float, *, keep: bool) -> str:
        """Record experiment `index` on top of the incumbent; its commit id.

        The same arguments give the same commit, and a commit that is there already is replaced (its message gains the
        result), so this may be called again after a kill.
        """
        commit = self._commit(source, message, self._incumbent_before(index), time)
        self.git.update_ref(f"{EXPERIMENTS}{index:04d}", commit)
        if keep:
            self._move_branch(commit)
        return commit

    def holds(self, commit: str) -> bool:
        """Whether some experiment's ref points at `commit`."""
        return commit in self.git.for_each_ref("--format=%(objectname)", EXPERIMENTS).split()

    def _incumbent_before(self, index: int) -> str:
        """What main held before experiment `index`: its tip, less the commits of this and later experiments."""
        refs = self.git.for_each_ref("--format=%(refname) %(objectname)", EXPERIMENTS).splitlines()
        numbered = (ref.removeprefix(EXPERIMENTS).split() for ref in refs)
        later = {commit for number, commit in numbered if int(number) >= index}
        return str(next(commit for commit in self.git.rev_list(BRANCH).splitlines() if commit not in later))

    def _commit(self, source: str, message: str, parent: str | None, time: float) -> str:
        # Straight into the object store: nothing in the working tree is trusted.
        blob = self.git.hash_object("-w", "--stdin", istream=_stdin(source))
        tree = self.git.mktree(istream=_stdin(f"100644 blob {blob}\t{FILE}\n"))
        stamp = f"@{int(time)} +0000"  # @: seconds since the epoch, however small
        parents = ["-p", parent] if parent else []
        with self.git.custom_environment(GIT_AUTHOR_DATE=stamp, GIT_COMMITTER_DATE=stamp):
            return str(self.git.commit_tree(tree, *parents, istream=_stdin(message.replace("\0", ""))))

    def _move_branch(self, commit: str) -> None:
        self.git.update_ref(BRANCH, commit)
        self.git.reset("--hard", "--quiet", commit)

    def _exists(self, ref: str) -> bool:
        return bool(self.git.for_each_ref(ref))


def _stdin(text: str) -> IO[bytes]:
    """A real file that holds `text`: subprocesses need one."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - git reads it after this returns; closed when it is collected
    file.write(text.encode())
    file.seek(0)
    return file
