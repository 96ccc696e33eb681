# SPDX-License-Identifier: Apache-2.0
"""The client on a terminal and in a pipe: colours, widths, progress, scripts of
the shells."""
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from conftest import BUILD

LIMPID = str(BUILD / "bin" / "limpid")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
EXPLAIN = ["explain", "--model", "sentiment-mamba", "--text",
           "A gorgeous, witty, seductive movie that nobody should miss."]


def on_terminal(server, *arguments, columns=80, **environment):
    """Exit status and everything that a terminal of that width was sent."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 24, columns, 0, 0))
        os.environ.update({"TERM": "xterm-256color", "LC_ALL": "C",
                           **environment})
        os.execv(LIMPID, [LIMPID, "--server", server.address, *arguments])
    seen = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


def in_pipe(server, *arguments):
    return subprocess.run([LIMPID, "--server", server.address, *arguments],
                          capture_output=True, text=True, timeout=60)


def lines_of(seen):
    """Lines as they stand on the screen at the end: without escapes and without
    what was written over."""
    return [ESCAPE.sub("", line.split("\r")[-1])
            for line in seen.replace("\r\n", "\n").split("\n")]


def width(line):
    """Columns of a line of characters that take one each."""
    return len(line.replace("\u2068", "").replace("\u2069", ""))


def test_colours_only_on_a_terminal(server):
    status, seen = on_terminal(server, *EXPLAIN)
    assert status == 0
    assert "\x1b[48;5;" in seen
    _, true_color = on_terminal(server, *EXPLAIN, COLORTERM="truecolor")
    assert "\x1b[48;2;" in true_color
    _, plain = on_terminal(server, *EXPLAIN, NO_COLOR="1")
    assert "\x1b[48" not in plain
    piped = in_pipe(server, *EXPLAIN)
    assert piped.returncode == 0
    assert "\x1b" not in piped.stdout + piped.stderr
    assert piped.stderr == ""


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_lines_fit_the_terminal(server, columns):
    for command in (EXPLAIN + ["--layer-view"], ["methods"], ["models"],
                    ["compare", "--model", "sentiment-mamba", "--method",
                     "raw-attention,input-x-gradient"] + EXPLAIN[3:],
                    ["explain", "--model", "nobody", "--text", "x"],
                    ["model", "sentiment-mamba"], ["--help"],
                    ["explain", "--help"], ["compare", "--help"]):
        _, seen = on_terminal(server, *command, columns=columns)
        for line in lines_of(seen):
            assert width(line) <= columns, (command[0], line)


def test_wide_and_right_to_left_text(server):
    text = "\u6620\u753b e\u0301t\u00e9 \u05e1\u05e8\u05d8 \u0641\u064a\u0644\u0645"
    status, seen = on_terminal(server, "explain", "--model", "sentiment-mamba",
                               "--text", text, columns=60)
    assert status == 0
    assert "\u202e" not in seen
    for line in lines_of(seen):
        assert width(line) <= 60
    assert in_pipe(server, "explain", "--model", "sentiment-mamba", "--text",
                   text).returncode == 0


def test_progress_is_shown_and_taken_away(server, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"text": f"film {i}"}) + "\n"
                             for i in range(30)))
    out = tmp_path / "results"
    status, seen = on_terminal(server, "explain", "--model", "sentiment-mamba",
                               "--jsonl", str(lines), "--out", str(out))
    assert status == 0
    assert "lines 15/30" in seen
    assert lines_of(seen)[-2] == (
        "limpid: 30 explained, 0 were there already, 0 failed")
    assert len(list(out.iterdir())) == 30
    _, again = on_terminal(server, "explain", "--model", "sentiment-mamba",
                           "--jsonl", str(lines), "--out", str(out))
    assert "0 explained, 30 were there already" in again


def test_errors_say_what_to_try(server):
    piped = in_pipe(server, "explain", "--model", "nobody", "--text", "x")
    assert piped.returncode == 1
    assert "MODEL_NOT_FOUND" in piped.stderr
    assert "to try: `limpid models`" in piped.stderr
    as_json = in_pipe(server, "explain", "--model", "sentiment-mamba", "--text",
                      "", "--json")
    assert as_json.returncode == 1
    error = json.loads(as_json.stderr)["error"]
    assert error["violations"][0]["field"] == "input.text"
    nobody = subprocess.run([LIMPID, "--server", "127.0.0.1:1", "models"],
                            capture_output=True, text=True, timeout=60)
    assert "is the server running there" in nobody.stderr


def completion(shell):
    return subprocess.run([LIMPID, "completion", shell], check=True,
                          capture_output=True, text=True).stdout


def test_fish_completes(server, tmp_path):
    script = tmp_path / "limpid.fish"
    script.write_text(completion("fish"))

    def offered(line):
        out = subprocess.run(
            ["fish", "--no-config", "-c",
             f"source {script}; complete -C '{line}'"],
            check=True, capture_output=True, text=True, timeout=60,
            env={**os.environ, "LIMPID_SERVER": server.address, "HOME":
                 str(tmp_path),
                 "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}"}).stdout
        return [one.split("\t")[0] for one in out.splitlines()]

    assert "explain" in offered("limpid exp")
    assert "matrix" in offered("limpid explain --attention ")
    assert "sentiment-mamba" in offered("limpid explain --model senti")
    assert "alti" in offered("limpid explain --method al")


def test_zsh_completes(tmp_path):
    """Its completion needs a terminal, so what is offered is recorded."""
    (tmp_path / "_limpid").write_text(completion("zsh"))
    program = f"""
compadd() {{ shift; print -l -- "$@"; }}
_files() {{ print files; }}
compdef() {{ }}
source {tmp_path / "_limpid"}
offer() {{ words=(limpid "$@"); CURRENT=${{#words}}; _limpid; }}
print commands; offer ''
print values; offer explain --attention ''
print files; offer explain --image ''
"""
    out = subprocess.run(["zsh", "-f", "-c", program], check=True, text=True,
                         capture_output=True, timeout=60).stdout.split("\n")
    assert "explain" in out[:out.index("values")]
    assert {"none", "row", "matrix"} <= set(
        out[out.index("values"):out.index("files")])
