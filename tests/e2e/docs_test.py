# SPDX-License-Identifier: Apache-2.0
"""Every command that a document prints is run, as it is printed, in the order
of the document and in one folder per document. Three kinds of changes are made:
the server's address, names that stand for something (SAMPLE.png), and sizes of
what would take minutes. What can't be run here is skipped with the reason, never
silently."""
import os
import re
import shutil
import signal
import subprocess

import pytest

import grpcurl
from conftest import BUILD, ROOT, free_port

DOCUMENTS = ["README.md", "CONTRIBUTING.md",
             *sorted(str(path.relative_to(ROOT))
                     for path in (ROOT / "docs").glob("*.md")
                     if path.name not in ("cli.md", "api.md"))]
PROGRAMS = ("limpid", "limpid-server", "build/bin/", "scripts/", "curl",
            "grpcurl", "printf", "cmake", "git", "systemctl", "apt",
            "LIMPID_")

# Commands that need what a test has not. They must stand here to be skipped.
ELSEWHERE = {
    r"scripts/(setup|test|build|fuzz|package|evaluate|train|generate-docs)":
        "minutes of work, or what runs this very test",
    r"scripts/gateway": "tried by http_test.py",
    r"cmake ": "tried by InstallTest in scripts/test",
}
# Less of the same.
SHORTER = {
    r"(limpid bench .*--duration) \S+": r"\1 2s",
    r"(limpid evaluate \w+ .*)": r"\1 --items 4 --resamples 100",
}


def blocks(text):
    """Code blocks: fenced ones of sh, and indented ones."""
    for fence in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        if fence[1] in ("sh", "bash", "console"):
            yield fence[2].splitlines()
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    block = []
    for line in text.splitlines() + [""]:
        if line.startswith("    "):
            block.append(line[4:])
        elif block:
            yield block
            block = []


def commands(document):
    text = (ROOT / document).read_text()
    for block in blocks(text):
        joined = "\n".join(block).replace("\\\n", " ")
        for line in joined.splitlines():
            line = re.sub(r"\s+#.*$", "", line.strip())
            if line.startswith(PROGRAMS) and not re.match(
                    r"limpid::", line):
                yield re.sub(r"\s+", " ", line)


CASES = [(document, command) for document in DOCUMENTS
         for command in commands(document)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder per document, with the tree's own folders in it."""
    made = {}

    def of(document):
        if document not in made:
            folder = tmp_path_factory.mktemp("docs")
            for name in ("models", "scripts", "deploy", "build", "evaluation"):
                (folder / name).symlink_to(
                    BUILD if name == "build" else ROOT / name)
            made[document] = folder
        return made[document]

    return of


def test_documents_have_commands():
    """A parser that finds nothing would let everything pass."""
    assert len(CASES) >= 30
    assert {"README.md", "docs/tutorial.md"} <= {one for one, _ in CASES}


@pytest.mark.parametrize("document,command", CASES,
                         ids=[f"{d}:{c[:60]}" for d, c in CASES])
def test_command(server, folders, document, command):
    for pattern, reason in ELSEWHERE.items():
        if re.match(pattern, command):
            program = command.split()[0]
            if "/" in program and not program.startswith("build/"):
                assert os.access(ROOT / program, os.X_OK), program
            pytest.skip(reason)
    sample = sorted(path for path in
                    (ROOT / "models/shapes-vim/samples").glob("*.png")
                    if "mask" not in path.name)[0]
    for pattern, shorter in SHORTER.items():
        command = re.sub(pattern, shorter, command)
    if command.startswith("limpid-server ") and "--listen" in command:
        return serve(command, folders(document))
    command = (command.replace("127.0.0.1:PORT", server.address)
               .replace("127.0.0.1:50051", server.address)
               .replace("SAMPLE.png", sample.name))
    if command.startswith("grpcurl ") and shutil.which("grpcurl") is None:
        assert grpcurl.run(command)
        return
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT if command.startswith("scripts/") else folders(document),
        capture_output=True, text=True, timeout=240,
        env={**os.environ, "LIMPID_SERVER": server.address,
             "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}"})
    assert result.returncode == 0, result.stderr


def serve(command, folder):
    """A server that a document starts: until it listens, and SIGTERM."""
    command = re.sub(r"(--listen \S+):\d+", rf"\1:{free_port()}", command)
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=folder, stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}"})
    try:
        assert any("limpid-server listening on" in line
                   for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
