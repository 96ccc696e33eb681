// SPDX-License-Identifier: Apache-2.0
//
// Tokenizes lines for a comparison with another implementation: reads one JSON
// string per line from stdin and prints its ids, separated by spaces, on a
// line. With --spans every id is followed by ":begin:end". A text that is
// refused gives "error: " and the message. The tokenizer's kind is told by its
// file's name: *.json, *.txt (RWKV World), anything else is SentencePiece.
#include <cstdint>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "server/base/mapped_file.h"
#include "server/input/byte_bpe.h"
#include "server/input/rwkv_world.h"
#include "server/input/sentencepiece.h"

int main(int argc, char** argv) {
  const bool spans = argc == 3 && std::string(argv[2]) == "--spans";
  if (argc != 2 && !spans) {
    std::cerr << "usage: tokenize_lines TOKENIZER [--spans] <LINES\n";
    return 2;
  }
  const std::string path = argv[1];
  const auto bytes = limpid::ReadFile(path, size_t{1} << 30);
  if (!bytes.ok()) {
    std::cerr << bytes.status().ToString() << "\n";
    return 1;
  }
  const auto make = path.ends_with(".json")  ? limpid::MakeByteBpe
                    : path.ends_with(".txt") ? limpid::MakeRwkvWorld
                                             : limpid::MakeSentencePiece;
  const auto tokenizer = make(*bytes, path);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status().ToString() << "\n";
    return 1;
  }
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    const auto text =
        nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!text.is_string()) {
      std::cerr << "not a JSON string: " << line << "\n";
      return 1;
    }
    const auto tokens = (*tokenizer)->Encode(text.get<std::string>());
    if (!tokens.ok()) {
      std::cout << "error: " << tokens.status().ToString() << "\n";
      continue;
    }
    const char* separator = "";
    for (const limpid::TokenSpan& token : *tokens) {
      std::cout << separator << token.id;
      if (spans) std::cout << ":" << token.begin << ":" << token.end;
      separator = " ";
    }
    std::cout << "\n";
  }
  return 0;
}
