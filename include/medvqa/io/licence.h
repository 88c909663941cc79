// Whose terms a base model comes under, and what they ask of a derived one.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace medvqa::io {

struct Licence {
  std::string id;          // a Hub licence id such as "llama3.2"; empty: not known
  std::string built_with;  // what pages and cards must show; empty unless Llama 3
  std::string notice;      // text of the NOTICE file; empty unless Llama
  std::string name;        // "Llama 3.2 Community License"; empty unless Llama
  // Llama 3.2's vision models: no rights for individuals and companies at home in the EU.
  bool not_in_the_eu = false;

  bool llama() const { return !notice.empty(); }
};

// By the first that says something: `license:` in the head of the folder's README.md, Meta's
// licence text among its files, the family (`config` in the form of model_config.h: mllama is
// Llama 3.2), the name of the base ("Llama-3.1-8B"), the shape (Qwen2-VL 2B and 7B are Apache-2.0).
// `base_folder` may be empty.
Licence find_licence(const std::filesystem::path& base_folder, const nlohmann::json& config,
                     const std::string& base_name);

// The terms behind a Hub licence id.
Licence licence_of(const std::string& id);

}  // namespace medvqa::io
