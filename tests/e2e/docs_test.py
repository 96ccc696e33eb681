# SPDX-License-Identifier: Apache-2.0
"""Every command that a document prints is run, as it is printed, in the order
of the document and in one folder per document. Two kinds of changes are made:
the server's address, and names that stand for something (SAMPLE.png). What
can't be run here is skipped with the reason, never silently."""
import os
import re
import shutil
import subprocess

import pytest

from conftest import BUILD, ROOT

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
    r"limpid-server .*--listen": "the server that these tests have started is "
                                 "the same",
    r"cmake ": "tried by InstallTest in scripts/test",
    r".*\bevaluate\b": "needs a data set of its own; run by scripts/evaluate",
    r"limpid bench": "tried by BenchProcessTest in scripts/test",
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
            for name in ("models", "scripts", "deploy", "build"):
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
    program = command.split()[0]
    if program == "grpcurl" and shutil.which(program) is None:
        pytest.skip("grpcurl is not packaged by Debian")
    sample = sorted(path for path in
                    (ROOT / "models/shapes-vim/samples").glob("*.png")
                    if "mask" not in path.name)[0]
    command = (command.replace("127.0.0.1:PORT", server.address)
               .replace("127.0.0.1:50051", server.address)
               .replace("SAMPLE.png", sample.name))
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT if command.startswith("scripts/") else folders(document),
        capture_output=True, text=True, timeout=240,
        env={**os.environ, "LIMPID_SERVER": server.address,
             "PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}"})
    assert result.returncode == 0, result.stderr
