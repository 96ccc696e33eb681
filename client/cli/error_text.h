// SPDX-License-Identifier: Apache-2.0
//
// Errors of calls in words for people, or as JSON for programs.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/cli/terminal.h"

namespace limpid::cli {

// Prints an error to standard error as every command does: code, reason and
// message, each wrong field with the flag that sets it, what else is known, and
// what can be tried.
void PrintError(Terminal& terminal, const absl::Status& status);

// The same, or with `json` {"error": {...}} on one line.
void PrintError(Terminal& terminal, const absl::Status& status, bool json);

// What a user can do about an error; empty if nothing better is known than what
// the message says.
std::string WhatToTry(const absl::Status& status);

// The flag that sets a field of a request, given by its path: "--text" for
// "input.text"; empty if there is none.
std::string FlagOfField(const std::string& field);

}  // namespace limpid::cli
