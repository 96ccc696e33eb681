// SPDX-License-Identifier: Apache-2.0
#include "client/cli/explain_flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cli/flag_values.h"

namespace limpid::cli {
namespace {

std::string OneOf(const google::protobuf::EnumDescriptor* type) {
  return absl::StrCat(": ", EnumNames(type));
}

void AddInputs(CLI::App& app, ExplainFlags& flags, bool batches) {
  CLI::App& group = *app.add_option_group("Input");
  AddValue(group, "--text", "TEXT", flags.text, "Text, taken verbatim");
  AddValue(group, "--text-file", "FILE", flags.text_file,
           "Text from a file, byte for byte; - for standard input");
  AddValue(group, "--tokens", "IDS", flags.tokens, "Token ids: 1,2,3");
  AddValue(group, "--image", "FILE", flags.image, "PNG or JPEG file");
  AddValue(group, "--pixels", "FILE", flags.pixels,
           "safetensors file with the tensor `pixels` [3, H, W]");
  if (batches) {
    AddValue(group, "--jsonl", "FILE", flags.jsonl,
             "One {\"text\": ...} or {\"tokens\": [...]} per line; one JSON "
             "result per line is printed, or with --out written to a file of "
             "its own. - for standard input");
  }
  group.require_option(1);
}

void AddWhat(CLI::App& app, ExplainFlags& flags) {
  CLI::App& group = *app.add_option_group("What to explain");
  AddValue(group, "--target", "TARGET", flags.target,
           "predicted (default), next (the token that follows), token:ID, "
           "class:ID or contrast:ID,ID");
  AddValue(group, "--position", "N|last|cls", flags.position,
           "Explained position (default last, for pictures cls), or several: "
           "3-6,9");
  AddValue(group, "--aggregate", "UNITS", flags.aggregate,
           "Sum attributions over word, span:0-3,7 or region:ROWSxCOLUMNS,... "
           "such as region:0-1x2-5");
  AddValue(group, "--attention", "KIND", flags.attention,
           "Attention to return" + OneOf(v1::AttentionKind_descriptor()) +
               " (default row)");
  AddValue(group, "--channels", "REDUCTION", flags.channels,
           "Reduction over channels" +
               OneOf(v1::ChannelReduction_descriptor()) +
               " (default mean-abs)");
  AddValue(group, "--form", "FORM", flags.form,
           "Factors in the matrices" + OneOf(v1::AttentionForm_descriptor()) +
               " (default full)");
  AddValue(group, "--layers", "LAYERS", flags.layers,
           "Layers to return: 0-3,7 (default all)");
  AddValue(group, "--channel-list", "CHANNELS", flags.channel_list,
           "With --channels all: the channels to return, 0-3,7 (default all)");
  AddValue(group, "--downsample", "N", flags.downsample,
           "Average returned attention over blocks of N entries per side");
  AddValue(group, "--attention-top-k", "N", flags.attention_top_k,
           "Keep the N largest entries of every returned row");
  AddValue(group, "--dtype", "float32|float16|uint8", flags.dtype,
           "Type in which attention is sent (default float32)");
  group.add_flag("--head-form", flags.head_form,
                 "One matrix per head, of the form state");
  AddValue(group, "--include-skip", "true|false", flags.include_skip,
           "Whether the recurrence's skip is part of the matrix");
  group.add_flag("--faithfulness", flags.faithfulness,
                 "Measure the attribution by deleting and inserting tokens");
  AddValue(group, "--top-k", "N", flags.top_k,
           "Predictions to list (default 5)");
  group
      .add_option("--option", flags.options,
                  absl::StrCat("Option of the method, may be repeated: ",
                               MethodOptionNames()))
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  AddValue(group, "--precision", "NAME", flags.precision,
           "Arithmetic of projections" + OneOf(v1::Precision_descriptor()) +
               " (default float32)");
}

void AddFiles(CLI::App& group, ExplainFlags& flags) {
  AddValue(group, "--png", "FILE", flags.png, "Write a picture");
  AddValue(group, "--html", "FILE", flags.html,
           "Write a report that opens in a browser, without network");
}

void AddOutputs(CLI::App& app, ExplainFlags& flags, bool& json) {
  CLI::App& group = *app.add_option_group("Output");
  group.add_flag("--logits", flags.logits, "Return the logits");
  group.add_flag("--debug-tensors", flags.debug_tensors,
                 "Return values, outputs, biases and gradients");
  group.add_flag("--validate-only", flags.validate_only,
                 "Tell the cost and run nothing");
  group.add_flag("--stream", flags.stream, "Print parts as they come");
  group.add_flag("--layer-view", flags.layer_view,
                 "Show the attention of every layer, too: a line per layer, a "
                 "column per token");
  AddValue(group, "--out", "DIR", flags.out,
           "Write safetensors, JSON, PNG, SVG and HTML files to a folder; with "
           "--jsonl a JSON file per line, and what is there already is not "
           "computed again");
  group
      .add_option("--in-flight", flags.in_flight,
                  "With --jsonl: requests at a time (default 8)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  AddValue(group, "--save", "FILE", flags.save, "Write a safetensors file");
  group.add_flag("--json", json, "Print the whole reply, or error, as JSON");
  AddFiles(group, flags);
  AddValue(group, "--svg", "FILE", flags.svg,
           "Write a vector picture, for papers");
  AddValue(group, "--opacity", "0-1", flags.opacity,
           "With --image: how much the map covers the picture under it "
           "(default 0.6)");
}

}  // namespace

CLI::Option* AddValue(CLI::App& app, const std::string& name,
                      const std::string& type,
                      std::optional<std::string>& value,
                      const std::string& help) {
  return app
      .add_option(
          name,
          [&value](const CLI::results_t& results) {
            value = results.front();
            return true;
          },
          help)
      ->type_name(type);
}

void AddExplainFlags(CLI::App& command, ExplainFlags& flags, bool& json) {
  command.add_option("--model", flags.model, "Model")
      ->type_name("NAME")
      ->required();
  AddInputs(command, flags, /*batches=*/true);
  AddValue(command, "--method", "NAME", flags.method,
           "Attribution method (default raw-attention); see `limpid methods`");
  AddWhat(command, flags);
  AddOutputs(command, flags, json);
  command.footer(
      "Examples:\n"
      "  limpid explain --model sentiment-mamba --text 'Not bad at all.' \\\n"
      "      --method integrated-gradients --target contrast:1,2\n"
      "  limpid explain --model sentiment-mamba --text 'Not bad at all.' \\\n"
      "      --attention matrix --html report.html\n"
      "  limpid explain --model recall-mamba --jsonl inputs.jsonl --out "
      "results\n"
      "\nOptions of limpid itself, such as --server and --deadline, may stand "
      "here too.");
}

void AddCompareFlags(CLI::App& command, ExplainFlags& flags, bool& json) {
  command.add_option("--model", flags.model, "Models: NAME or NAME,NAME,...")
      ->type_name("NAMES")
      ->required();
  AddInputs(command, flags, /*batches=*/false);
  AddValue(command, "--method", "NAMES", flags.method,
           "Attribution methods: NAME or NAME,NAME,... (default "
           "raw-attention)");
  AddWhat(command, flags);
  CLI::App& group = *command.add_option_group("Output");
  group.add_flag("--json", json, "Print the replies, or the error, as JSON");
  AddFiles(group, flags);
  command.footer(
      "Every model with every method, 2 to 8 in all. Models whose tokens "
      "differ "
      "are\ncompared by words.\n\n"
      "Examples:\n"
      "  limpid compare --model sentiment-mamba --text 'Not bad at all.' \\\n"
      "      --method raw-attention,integrated-gradients\n"
      "  limpid compare --model sentiment-mamba,sentiment-rwkv4 \\\n"
      "      --text 'Not bad at all.' --html report.html");
}

std::string ExplainMistake(const ExplainFlags& flags) {
  if (flags.jsonl &&
      (flags.save || flags.png || flags.html || flags.svg || flags.stream)) {
    return "--jsonl prints or, with --out, writes JSON only: without --save, "
           "--png, --html, --svg and --stream";
  }
  if (flags.validate_only &&
      (flags.out || flags.save || flags.png || flags.html || flags.svg)) {
    return "--validate-only runs nothing: without --out, --save, --png, --html "
           "and --svg";
  }
  if (flags.opacity) {
    double opacity = 0;
    if (!absl::SimpleAtod(*flags.opacity, &opacity) || !(opacity >= 0) ||
        !(opacity <= 1)) {
      return absl::StrCat("--opacity: \"", *flags.opacity,
                          "\" is not a number from 0 to 1");
    }
  }
  return "";
}

}  // namespace limpid::cli
