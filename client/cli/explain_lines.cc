// SPDX-License-Identifier: Apache-2.0
//
// limpid explain --jsonl.
#include <algorithm>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/error_text.h"
#include "client/cli/explain_command.h"
#include "client/cli/json_output.h"
#include "client/cli/request_builder.h"
#include "client/files.h"

namespace limpid::cli {
namespace {

using Json = nlohmann::json;

absl::Status Unparsable(absl::string_view what) {
  return ClientError(
      absl::StatusCode::kInvalidArgument, "LINE_NOT_UNDERSTOOD",
      absl::StrCat("expected {\"text\": ...} or {\"tokens\": [...]}: ", what));
}

absl::StatusOr<v1::Input> ParseLine(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Unparsable("not a JSON object");
  v1::Input input;
  if (json.size() != 1) return Unparsable("exactly one key is needed");
  if (const auto found = json.find("text");
      found != json.end() && found->is_string()) {
    input.set_text(found->get<std::string>());
    return input;
  }
  const auto found = json.find("tokens");
  if (found == json.end() || !found->is_array()) {
    return Unparsable("neither a text nor a list of tokens");
  }
  input.mutable_tokens();
  for (const Json& id : *found) {
    if (!id.is_number_integer() ||
        (id.is_number_unsigned() && id.get<uint64_t>() > INT64_MAX)) {
      return Unparsable("a token is not an integer of 64 bits");
    }
    input.mutable_tokens()->add_ids(id.get<int64_t>());
  }
  return input;
}

// A line with what came of it.
struct Item {
  int64_t number = 0;  // of the line, from 1
  // Of the request, in JSON, where results are kept in a folder.
  std::string request;
  std::future<absl::StatusOr<Explanation>> result;
};

// Explains lines with many requests in flight and hands on the results in the
// order of the lines.
class Batch {
 public:
  Batch(Client& client, const CommandLine& line, v1::ExplainRequest request,
        int64_t total, Terminal& terminal)
      : client_(client),
        flags_(line.explain),
        request_(std::move(request)),
        total_(total),
        terminal_(terminal),
        progress_(terminal) {}

  // False once the run must end.
  bool Add(int64_t number, const std::string& text) {
    absl::StatusOr<v1::Input> input = ParseLine(text);
    Item item{number, "", {}};
    if (!input.ok()) {
      code_ = kExitUsage;
      std::promise<absl::StatusOr<Explanation>> failed;
      item.result = failed.get_future();
      failed.set_value(input.status());
    } else {
      *request_.mutable_input() = *std::move(input);
      if (flags_.out) {
        const absl::StatusOr<std::string> json = MessageJson(request_);
        if (!json.ok()) return Fail(json.status());
        item.request = *json;
        if (IsThere(item)) {
          ++num_there_;
          Progress();
          return true;
        }
      }
      auto promise =
          std::make_shared<std::promise<absl::StatusOr<Explanation>>>();
      item.result = promise->get_future();
      client_.ExplainAsync(request_, [promise](auto explanation) {
        promise->set_value(std::move(explanation));
      });
    }
    items_.push_back(std::move(item));
    return items_.size() < static_cast<size_t>(flags_.in_flight) || TakeOne();
  }

  // Waits for what is in flight; the exit status.
  int Finish() {
    while (!ended_ && !items_.empty()) TakeOne();
    progress_.Clear();
    if (flags_.out) {
      terminal_.err << "limpid: " << num_explained_ << " explained, "
                    << num_there_ << " were there already, " << num_failed_
                    << " failed\n";
    }
    return code_;
  }

 private:
  std::string PathOf(const Item& item) const {
    return absl::StrFormat("%s/%06d.json", *flags_.out, item.number);
  }
  static std::string BeginningOf(const Item& item) {
    return absl::StrCat("{\"line\":", item.number,
                        ",\"request\":", item.request, ",\"explanation\":");
  }

  // Whether an earlier run has explained the same request. Files appear under
  // their names only once they are complete.
  bool IsThere(const Item& item) const {
    std::ifstream file(PathOf(item), std::ios::binary);
    const std::string expected = BeginningOf(item);
    std::string found(expected.size(), '\0');
    file.read(found.data(), static_cast<std::streamsize>(found.size()));
    return file && found == expected;
  }

  // Hands on the result of the oldest line; false once the run must end.
  bool TakeOne() {
    Item item = std::move(items_.front());
    items_.pop_front();
    const absl::StatusOr<Explanation> explanation = item.result.get();
    const absl::StatusOr<std::string> json =
        explanation.ok() ? ExplanationJson(*explanation)
                         : absl::StatusOr<std::string>(explanation.status());
    if (!json.ok()) {
      ++num_failed_;
      code_ = std::max(code_, kExitFailed);
    } else {
      ++num_explained_;
    }
    progress_.Clear();
    if (!flags_.out) {
      terminal_.out << "{\"line\":" << item.number
                    << (json.ok() ? ",\"explanation\":" : ",\"error\":")
                    << (json.ok() ? *json : ErrorJson(json.status())) << "}\n"
                    << std::flush;
    } else if (json.ok()) {
      const absl::Status written = WriteWholeFile(
          PathOf(item), absl::StrCat(BeginningOf(item), *json, "}\n"));
      if (!written.ok()) return Fail(written);
    }
    if (!json.ok()) {
      terminal_.err << "limpid: line " << item.number << "\n";
      PrintError(terminal_, json.status());
    }
    Progress();
    if (absl::IsCancelled(json.status())) ended_ = true;
    return !ended_;
  }

  bool Fail(const absl::Status& status) {
    progress_.Clear();
    PrintError(terminal_, status);
    code_ = std::max(code_, kExitFailed);
    ended_ = true;
    return false;
  }

  void Progress() {
    progress_.Show(num_explained_ + num_there_ + num_failed_, total_, "lines");
  }

  Client& client_;
  const ExplainFlags& flags_;
  v1::ExplainRequest request_;
  const int64_t total_;  // lines with something on them; 0: not known
  Terminal& terminal_;
  ProgressLine progress_;
  std::deque<Item> items_;  // in flight or done, not handed on yet
  int64_t num_explained_ = 0, num_there_ = 0, num_failed_ = 0;
  int code_ = kExitOk;
  bool ended_ = false;
};

bool IsBlank(const std::string& text) {
  return text.find_first_not_of(" \t\r") == std::string::npos;
}

// Lines of a file that hold something.
int64_t CountLines(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  int64_t count = 0;
  for (std::string text; std::getline(file, text);) count += !IsBlank(text);
  return count;
}

}  // namespace

int RunExplainLines(Client& client, const CommandLine& line,
                    Terminal& terminal) {
  absl::StatusOr<v1::ExplainRequest> request = BuildRequest(line.explain);
  if (!request.ok()) {
    terminal.err << "limpid: " << Safe(request.status().message()) << "\n";
    return kExitUsage;
  }
  std::ifstream file;
  const std::string& path = *line.explain.jsonl;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& in = path == "-" ? std::cin : file;
  if (path != "-" && !file.is_open()) {
    terminal.err << "limpid: --jsonl: cannot read " << path << "\n";
    return kExitUsage;
  }
  if (line.explain.out) {
    if (const absl::Status made = MakeFolder(*line.explain.out); !made.ok()) {
      PrintError(terminal, made);
      return kExitFailed;
    }
  }
  // A pipe can be read only once.
  const bool countable = path != "-" && terminal.progress &&
                         std::filesystem::is_regular_file(path);
  Batch batch(client, line, *std::move(request),
              countable ? CountLines(path) : 0, terminal);
  int64_t number = 0;
  for (std::string text; std::getline(in, text);) {
    ++number;
    if (!IsBlank(text) && !batch.Add(number, text)) break;
  }
  const int code = batch.Finish();
  if (in.bad()) {
    terminal.err << "limpid: --jsonl: cannot read " << path << "\n";
    return std::max(code, kExitFailed);
  }
  return code;
}

}  // namespace limpid::cli
