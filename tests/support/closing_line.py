# SPDX-License-Identifier: Apache-2.0
"""Plugin of pytest: the last line is "N passed, N failed, N skipped"."""


def pytest_terminal_summary(terminalreporter):
    counts = {name: len(terminalreporter.stats.get(name, []))
              for name in ("passed", "failed", "error", "skipped")}
    terminalreporter.config.closing_line = (
        f"{counts['passed']} passed, {counts['failed'] + counts['error']} "
        f"failed, {counts['skipped']} skipped")


def pytest_unconfigure(config):
    if hasattr(config, "closing_line"):
        print(config.closing_line)
