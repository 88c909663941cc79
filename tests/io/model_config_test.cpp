#include "medvqa/io/model_config.h"

#include <cstdlib>

#include "medvqa/io/hub_cache.h"
#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

using nlohmann::json;

TEST(ModelConfig, FlatAndNestedQwenBecomeTheSame) {
  const json flat = json::parse(R"({"model_type":"qwen2_vl","hidden_size":64,"rope_theta":1e6,
      "rope_scaling":{"type":"mrope","mrope_section":[2,3,3]},"torch_dtype":"bfloat16",
      "tie_word_embeddings":true,"image_token_id":5,"vision_config":{"depth":2}})");
  const json nested = json::parse(R"({"model_type":"qwen2_vl","dtype":"bfloat16",
      "tie_word_embeddings":true,"image_token_id":5,"vision_config":{"depth":2},
      "text_config":{"hidden_size":64,"dtype":"bfloat16","rope_parameters":
      {"rope_theta":1e6,"rope_type":"default","type":"mrope","mrope_section":[2,3,3]}}})");
  const json a = normalized_config(flat, "a");
  EXPECT_EQ(a, normalized_config(nested, "b"));
  EXPECT_EQ(a, normalized_config(a, "again"));
  EXPECT_EQ(a["text_config"]["rope_parameters"],
            json::parse(R"({"rope_theta":1e6,"rope_type":"default","mrope_section":[2,3,3]})"));
  EXPECT_EQ(a["dtype"], "bfloat16");
  EXPECT_EQ(a["tie_word_embeddings"], true);
}

TEST(ModelConfig, LlamaAndMllama) {
  const json llama = normalized_config(
      json::parse(R"({"model_type":"llama","rope_theta":5e5,"rope_scaling":null,"vocab_size":9})"),
      "l");
  EXPECT_EQ(llama["text_config"]["rope_parameters"],
            json::parse(R"({"rope_theta":5e5,"rope_type":"default"})"));
  EXPECT_EQ(llama["tie_word_embeddings"], false);
  EXPECT_FALSE(llama.contains("vision_config"));
  const json mllama = normalized_config(
      json::parse(R"({"model_type":"mllama","torch_dtype":"bfloat16","image_token_index":7,
      "text_config":{"rope_theta":5e5,"tie_word_embeddings":true,"rope_scaling":
      {"rope_type":"llama3","factor":8.0}},"vision_config":{"torch_dtype":"float16"}})"),
      "m");
  EXPECT_EQ(mllama["text_config"]["rope_parameters"]["rope_type"], "llama3");
  EXPECT_EQ(mllama["text_config"]["rope_parameters"]["rope_theta"], 5e5);
  EXPECT_EQ(mllama["vision_config"]["dtype"], "float16");
  EXPECT_EQ(mllama["tie_word_embeddings"], true);
  EXPECT_EQ(mllama["image_token_index"], 7);
}

TEST(ModelConfig, ErrorsNameTheFile) {
  const TempFolder folder;
  expect_user_error(ExitCode::model, {"config.json is missing"},
                    [&] { read_model_config(folder.path()); });
  const auto fails = [&](const std::string& text, const std::vector<std::string>& parts) {
    folder.write("config.json", text);
    expect_user_error(ExitCode::model, parts, [&] { read_model_config(folder.path()); });
  };
  fails("[]", {"config.json", "an object"});
  fails("{}", {"config.json", "\"model_type\" is missing"});
  fails(R"({"model_type":"llama","rope_scaling":3})", {"\"rope_scaling\"", "3"});
  fails(R"({"model_type":"llama","text_config":3})", {"\"text_config\""});
  fails(R"({"model_type":"llama","tie_word_embeddings":"no"})", {"\"tie_word_embeddings\""});
  fails("{\"model_type\":\"llama\",}", {"config.json, line 1"});
}

TEST(HubCache, FindsTheSnapshotOfMain) {
  const TempFolder cache;
  ::setenv("HF_HUB_CACHE", cache.path().c_str(), 1);
  EXPECT_EQ(find_model_folder(cache.path().string()), cache.path());
  expect_user_error(ExitCode::model, {"org/some-model", "hf download org/some-model"},
                    [] { find_model_folder("org/some-model"); });
  expect_user_error(ExitCode::model, {"no/such/folder", "no such folder"},
                    [] { find_model_folder("no/such/folder"); });
  cache.write("models--org--some-model/refs/main", "abc123\n");
  cache.write("models--org--some-model/snapshots/abc123/config.json", "{}");
  cache.write("models--org--some-model/snapshots/def/config.json", "{}");
  EXPECT_EQ(find_model_folder("org/some-model").filename(), "abc123");
  cache.write("models--org--some-model/refs/main", "../../elsewhere");
  expect_user_error(ExitCode::model, {"hf download"}, [] { find_model_folder("org/some-model"); });
  ::unsetenv("HF_HUB_CACHE");
}

}  // namespace
}  // namespace medvqa::io
