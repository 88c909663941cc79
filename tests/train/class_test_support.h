// A small llama and texts with three classes, for the tests of classification.
#pragma once

#include <string>

#include "medvqa/train/random_checkpoint.h"
#include "tests/train/train_test_support.h"

namespace medvqa::train {

// Labels "b", "a" and "c", in this order, of the bytes 7, 1 and z; twelve texts, every third held
// out; four steps of 2 x 2.
inline nlohmann::ordered_json class_config(const TempFolder& folder) {
  const fs::path model = folder.path() / "llama";
  if (!fs::exists(model)) {
    json config = preset_config("tiny-llama");
    config["num_hidden_layers"] = 2;
    write_random_checkpoint({config, model, 5, true, {}});
  }
  const char* labels[] = {"a", "b", "c", "a", "c"};
  std::string train, held_out;
  for (int i = 0; i < 12; ++i) {
    const json row{{"text", std::string(static_cast<std::size_t>(3 + i * 5 % 17), 'x')},
                   {"site", i},
                   {"label", labels[i % 5]}};
    (i % 3 == 2 ? held_out : train) += row.dump() + "\n";
  }
  const auto source = [&](const char* name, const std::string& text) {
    return json::array({{{"format", "jsonl"}, {"path", folder.write(name, text).string()}}});
  };
  nlohmann::ordered_json c;
  c["classification"]["classes"] = {{"b", "7"}, {"a", "1"}, {"c", "z"}};
  c["task"] = "classification";
  c["device"] = "cpu";
  c["model"] = {{"path", model.string()}, {"compute", "f32"}};
  c["data"] = json{{"train", source("texts.jsonl", train)},
                   {"validation", source("held_out.jsonl", held_out)},
                   {"prompt", "{site}: {text}"}};
  c["train"] = {{"batch_size", 2},
                {"gradient_accumulation", 2},
                {"max_steps", 4},
                {"learning_rate", 2e-3},
                {"warmup_steps", 1}};
  c["output"] = (folder.path() / "run").string();
  return c;
}

}  // namespace medvqa::train
