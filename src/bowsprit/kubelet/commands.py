"""The few programs that a simulated container has, for ``kubectl exec`` and ``kubectl cp``. No I/O."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from bowsprit.kubelet.files import FileError, Files
from bowsprit.machinery.objects import Obj, nested

_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Result:
    """What a command wrote and how it ended.

    ``copies_stdin`` asks for standard input to be written back; ``takes_stdin`` to be called with all of it, for the rest of
    the result; ``interactive`` for commands to be read from it line by line.
    """

    stdout: str | bytes = ""
    stderr: str = ""
    code: int = 0
    copies_stdin: bool = False
    takes_stdin: Callable[[bytes], Result] | None = None
    interactive: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a command runs."""

    pod: Obj
    container: str
    now: datetime
    files: Files
    depth: int = 0


def run(command: list[str], pod: Obj, container: str, now: datetime, files: Files | None = None) -> Result:
    """Run a command; an unknown one ends with 126 and the runtime's message."""
    return _run(command, Surroundings(pod, container, now, files or Files(hostname(pod))))


def _run(command: list[str], where: Surroundings) -> Result:
    if not command:
        return Result(stderr="you must specify at least one command for the container\n", code=126)
    program, arguments = command[0].rpartition("/")[2], command[1:]
    match program:
        case "true" | ":":
            return Result()
        case "false":
            return Result(code=1)
        case "echo":
            newline = "" if arguments[:1] == ["-n"] else "\n"
            return Result(stdout=" ".join(arguments[not newline :]) + newline)
        case "hostname":
            return Result(stdout=f"{hostname(where.pod)}\n")
        case "date":
            return Result(stdout=where.now.strftime("%a %b %e %H:%M:%S UTC %Y\n"))
        case "env" | "printenv":
            return _printenv(environment(where.pod, where.container), arguments)
        case "whoami" | "id":
            return Result(stdout="root\n" if program == "whoami" else "uid=0(root) gid=0(root) groups=0(root)\n")
        case "pwd":
            return Result(stdout="/\n")
        case "exit":
            return Result(code=int(arguments[0]) % 256 if arguments and arguments[0].isdigit() else 0)
        case "sh" | "bash" | "ash":
            return _shell(arguments, where)
        case "cat" | "ls" | "rm" | "mkdir" | "test" | "[" | "tar":
            return _PROGRAMS[program](arguments, where.files)
    return Result(stderr=f'exec: "{command[0]}": executable file not found in $PATH\n', code=126)


def hostname(pod: Obj) -> str:
    """The pod's host name."""
    return str(nested(pod, "spec", "hostname") or pod["metadata"]["name"])


def environment(pod: Obj, container: str) -> dict[str, str]:
    """The container's variables with plain values, and those that every container has."""
    found = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": hostname(pod),
        "HOME": "/root",
    }
    for spec in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        if spec["name"] == container:
            found |= {
                item["name"]: item.get("value") or "" for item in spec.get("env") or () if "valueFrom" not in item
            }
    return found


def _printenv(variables: dict[str, str], names: list[str]) -> Result:
    if not names:
        return Result(stdout="".join(f"{name}={value}\n" for name, value in variables.items()))
    missing = [name for name in names if name not in variables]
    return Result(stdout="".join(f"{variables[name]}\n" for name in names if name in variables), code=bool(missing))


# -- files -------------------------------------------------------------------------------------------------------------


def _cat(arguments: list[str], files: Files) -> Result:
    if not arguments or arguments == ["-"]:
        return Result(copies_stdin=True)
    found, errors = b"", ""
    for name in arguments:
        try:
            found += files.read(name)
        except FileError as exc:
            errors += f"cat: can't open '{name}': {exc}\n"
    return Result(found, errors, int(bool(errors)))


def _ls(arguments: list[str], files: Files) -> Result:
    found, errors = "", ""
    for name in [item for item in arguments if not item.startswith("-")] or ["/"]:
        try:
            found += "".join(f"{each}\n" for each in files.names(name))
        except FileError as exc:
            errors += f"ls: {name}: {exc}\n"
    return Result(found, errors, int(bool(errors)))


def _rm(arguments: list[str], files: Files) -> Result:
    forced = any(item.startswith("-") and "f" in item for item in arguments)
    missing = [name for name in arguments if not name.startswith("-") and not files.remove(name)]
    errors = "" if forced else "".join(f"rm: can't remove '{name}': No such file or directory\n" for name in missing)
    return Result(stderr=errors, code=int(bool(errors)))


def _mkdir(arguments: list[str], files: Files) -> Result:
    for name in arguments:
        if not name.startswith("-"):
            files.make_folder(name)
    return Result()


def _test(arguments: list[str], files: Files) -> Result:
    arguments = arguments[:-1] if arguments[-1:] == ["]"] else arguments
    match arguments:
        case ["-d", name]:
            return Result(code=int(not files.is_folder(name)))
        case ["-f", name]:
            return Result(code=int(not files.is_file(name)))
        case ["-e", name]:
            return Result(code=int(not (files.is_file(name) or files.is_folder(name))))
    return Result(stderr="sh: test: only -d, -e and -f are known in simulated containers\n", code=2)


def _tar(arguments: list[str], files: Files) -> Result:
    """``tar cf - PATH…`` and ``tar xf - [-C FOLDER]``, which are what kubectl cp asks for."""
    words = [word for word in arguments if word not in ("--no-same-permissions", "--no-same-owner")]
    action, rest = (words[0].lstrip("-"), words[1:]) if words else ("", [])
    folder = "/"
    if "-C" in rest[:-1]:
        position = rest.index("-C")
        folder = rest[position + 1]
        rest = rest[:position] + rest[position + 2 :]
    if rest[:1] != ["-"] or "f" not in action or not ("x" in action or "c" in action):
        return Result(stderr="tar: only cf - and xf - are known in simulated containers\n", code=2)
    try:
        if "c" in action:
            return Result(files.pack(rest[1] if len(rest) > 1 else folder))
    except FileError as exc:
        return Result(stderr=f"tar: {rest[1]}: {exc}\n", code=1)

    def unpack(archive: bytes) -> Result:
        try:
            files.unpack(archive, folder)
        except FileError as exc:
            return Result(stderr=f"tar: {exc}\n", code=1)
        return Result()

    return Result(takes_stdin=unpack)


_PROGRAMS: dict[str, Callable[[list[str], Files], Result]] = {
    "cat": _cat,
    "ls": _ls,
    "rm": _rm,
    "mkdir": _mkdir,
    "test": _test,
    "[": _test,
    "tar": _tar,
}


# -- the shell ---------------------------------------------------------------------------------------------------------


def _shell(arguments: list[str], where: Surroundings) -> Result:
    """``sh -c`` with simple commands, joined by ``;`` and ``&&``; no pipes, variables or redirections."""
    if not arguments or arguments == ["-i"]:
        return Result(interactive=True)
    if arguments[:1] != ["-c"] or len(arguments) < 2 or where.depth >= _DEPTH:
        return Result(stderr="sh: only -c is known in simulated containers\n", code=2)
    inner = Surroundings(where.pod, where.container, where.now, where.files, where.depth + 1)
    try:
        lexer = shlex.shlex(arguments[1], posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError as exc:
        return Result(stderr=f"sh: syntax error: {exc}\n", code=2)
    stdout, stderr, code = b"", "", 0
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in (";", "&&"):
            if set(word) <= set(";&|<>"):
                return Result(stdout, stderr + f"sh: {word}: not supported in simulated containers\n", 2)
            command.append(word)
            continue
        if command:
            result = _run(command, inner)
            stdout, stderr, code = stdout + output(result), stderr + result.stderr, result.code
            if command[0] == "exit":
                break
        command = []
        if word == "&&" and code:
            break
    return Result(stdout, stderr, code)


def output(result: Result) -> bytes:
    """What was written to standard output."""
    return result.stdout.encode() if isinstance(result.stdout, str) else result.stdout


def exit_status(code: int) -> Obj:
    """The Status that ends an exec (v4.channel.k8s.io and later)."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
