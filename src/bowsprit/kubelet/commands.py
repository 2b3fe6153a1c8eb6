"""The few programs that a simulated container has, for ``kubectl exec``. No I/O."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime

from bowsprit.machinery.objects import Obj, nested

_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Result:
    """What a command wrote and how it ended; ``copies_stdin`` asks for standard input to be written back."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0
    copies_stdin: bool = False


def run(command: list[str], pod: Obj, container: str, now: datetime, depth: int = 0) -> Result:
    """Run a command; an unknown one ends with 126 and the runtime's message."""
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
            return Result(stdout=f"{hostname(pod)}\n")
        case "date":
            return Result(stdout=now.strftime("%a %b %e %H:%M:%S UTC %Y\n"))
        case "env" | "printenv":
            return _printenv(environment(pod, container), arguments)
        case "whoami" | "id":
            return Result(stdout="root\n" if program == "whoami" else "uid=0(root) gid=0(root) groups=0(root)\n")
        case "pwd":
            return Result(stdout="/\n")
        case "ls":
            return Result(stdout="bin  dev  etc  proc  tmp  var\n")
        case "cat":
            return _cat(arguments, pod)
        case "exit":
            code = int(arguments[0]) % 256 if arguments and arguments[0].isdigit() else 0
            return Result(code=code)
        case "sh" | "bash" | "ash":
            return _shell(arguments, pod, container, now, depth)
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


def _cat(files: list[str], pod: Obj) -> Result:
    if not files or files == ["-"]:
        return Result(copies_stdin=True)
    known = {"/etc/hostname": f"{hostname(pod)}\n", "/dev/null": ""}
    missing = [name for name in files if name not in known]
    errors = "".join(f"cat: can't open '{name}': No such file or directory\n" for name in missing)
    return Result("".join(known.get(name, "") for name in files), errors, int(bool(missing)))


def _shell(arguments: list[str], pod: Obj, container: str, now: datetime, depth: int) -> Result:
    """``sh -c`` with simple commands, joined by ``;`` and ``&&``; no pipes, variables or redirections."""
    if arguments[:1] != ["-c"] or len(arguments) < 2 or depth >= _DEPTH:
        return Result(stderr="sh: simulated containers have no interactive shell\n", code=2)
    try:
        lexer = shlex.shlex(arguments[1], posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError as exc:
        return Result(stderr=f"sh: syntax error: {exc}\n", code=2)
    stdout = stderr = ""
    code = 0
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in (";", "&&"):
            if set(word) <= set(";&|<>"):
                return Result(stdout, stderr + f"sh: {word}: not supported in simulated containers\n", 2)
            command.append(word)
            continue
        if command:
            result = run(command, pod, container, now, depth + 1)
            stdout, stderr, code = stdout + result.stdout, stderr + result.stderr, result.code
            if command[0] == "exit":
                break
        command = []
        if word == "&&" and code:
            break
    return Result(stdout, stderr, code)


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
