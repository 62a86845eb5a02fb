"""The session's git repository: a commit per experiment, the branch advances only on a keep.

It is a view of the journal: everything in it can be rebuilt from the records, and is, when a kill came between the two.
Agent code never runs inside it; git runs no hooks, reads nothing of the user's settings or of the surroundings that
name another repository, and gets every text that a researcher wrote through standard input, never as an argument.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from harness.errors import HarnessError

NO_GIT = "git cannot be started: install git 2.28 or newer"
try:
    import git
except ImportError as error:
    if error.name is not None:  # a package is missing, not the program
        raise
    raise HarnessError(NO_GIT) from error

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
_SETTINGS = ("-c", f"core.hooksPath={os.devnull}", "-c", "core.autocrlf=false")


class GitFailed(HarnessError):
    """A command of git failed; the message has what git said."""


class Workspace:
    """`main` holds the incumbent; every experiment stays reachable under refs/experiments/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def git(self, *arguments: str, stdin: str = "", stamp: str | None = None) -> str:
        """What this command of git prints. Raises GitFailed."""
        dates = {"GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp} if stamp else {}
        command = ["git", *_SETTINGS, *arguments]
        with tempfile.TemporaryFile() as text:
            text.write(stdin.encode())
            text.seek(0)
            try:
                env = {**SAFE_GIT, **_place(self.folder), **dates}
                return str(git.Git(self.folder).execute(command, istream=text, env=env))
            except git.GitCommandNotFound as error:
                raise HarnessError(NO_GIT) from error
            except git.GitCommandError as error:
                said = " ".join(error.stderr.removeprefix("\n  stderr: ").strip("'").split())
                raise GitFailed(
                    f"{self.folder}: git {arguments[0]} failed ({said}); mend that (git: 2.28 or newer), then resume"
                ) from error

    def discard(self) -> None:
        """Away with a repository that git cannot use: the next commits make it anew."""
        try:
            if (self.folder / ".git").is_dir():
                shutil.rmtree(self.folder / ".git")
            else:
                (self.folder / ".git").unlink(missing_ok=True)
        except OSError as error:
            raise HarnessError(f"{self.folder}: delete this folder ({error}), then resume") from error

    def commit_stock(self, source: str, time: float) -> str:
        """The first commit, made once; its id."""
        if not (self.folder / ".git" / "HEAD").is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.git("init", "--quiet", "--initial-branch=main")
        if not self._exists(BRANCH):
            self._move_branch(self._commit(source, "Stock train.py", None, time))
        return self.git("rev-list", "--max-parents=0", BRANCH)

    def commit_experiment(self, index: int, source: str, message: str, time: float, *, keep: bool) -> str:
        """Record experiment `index` on top of the incumbent; its commit id.

        The same arguments give the same commit, and a commit that is there already is replaced (its message gains the
        result), so this may be called again after a kill.
        """
        commit = self._commit(source, message, self._incumbent_before(index), time)
        self.git("update-ref", f"{EXPERIMENTS}{index:04d}", commit)
        if keep:
            self._move_branch(commit)
        return commit

    def holds(self, commit: str) -> bool:
        """Whether some experiment's ref points at `commit`."""
        return commit in self.git("for-each-ref", "--format=%(objectname)", EXPERIMENTS).split()

    def _incumbent_before(self, index: int) -> str:
        """What main held before experiment `index`: its tip, less the commits of this and later experiments."""
        refs = self.git("for-each-ref", "--format=%(refname) %(objectname)", EXPERIMENTS).splitlines()
        numbered = (ref.removeprefix(EXPERIMENTS).split() for ref in refs)
        later = {commit for number, commit in numbered if int(number) >= index}
        before = (commit for commit in self.git("rev-list", BRANCH).splitlines() if commit not in later)
        if (incumbent := next(before, None)) is None:
            raise GitFailed(
                f"{self.folder}: main has nothing from before experiment {index + 1}; delete it, then resume"
            )
        return incumbent

    def _commit(self, source: str, message: str, parent: str | None, time: float) -> str:
        # Straight into the object store: nothing in the working tree is trusted.
        blob = self.git("hash-object", "-w", "--stdin", stdin=source)
        tree = self.git("mktree", stdin=f"100644 blob {blob}\t{FILE}\n")
        stamp = f"@{int(time)} +0000"  # @: seconds since the epoch, however small
        parents = ["-p", parent] if parent else []
        return self.git("commit-tree", tree, *parents, stdin=message.replace("\0", ""), stamp=stamp)

    def _move_branch(self, commit: str) -> None:
        self.git("update-ref", BRANCH, commit)
        self.git("reset", "--hard", "--quiet", commit)

    def _exists(self, ref: str) -> bool:
        return bool(self.git("for-each-ref", ref))


def _place(folder: Path) -> dict[str, str]:
    """What a hook or a user's shell may have set to name another repository, its index, objects or settings.

    The repository is named too, so that git never looks for one in the folders above.
    """
    place = folder / ".git"
    return {
        "GIT_DIR": str(place),
        "GIT_COMMON_DIR": str(place),
        "GIT_WORK_TREE": str(folder),
        "GIT_INDEX_FILE": str(place / "index"),
        "GIT_OBJECT_DIRECTORY": str(place / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
        "GIT_NAMESPACE": "",
        "GIT_CONFIG_COUNT": "0",
        "GIT_CONFIG_PARAMETERS": "",
    }
