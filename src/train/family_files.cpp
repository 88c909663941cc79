#include "src/train/family_files.h"

#include <array>

namespace medvqa::train {

namespace {

using nlohmann::json;

constexpr std::array<SpecialToken, 14> kQwen2Vl{{
    {"<|endoftext|>", 151643, "bos_token_id"},
    {"<|im_start|>", 151644, ""},
    {"<|im_end|>", 151645, "eos_token_id"},
    {"<|object_ref_start|>", 151646, ""},
    {"<|object_ref_end|>", 151647, ""},
    {"<|box_start|>", 151648, ""},
    {"<|box_end|>", 151649, ""},
    {"<|quad_start|>", 151650, ""},
    {"<|quad_end|>", 151651, ""},
    {"<|vision_start|>", 151652, "vision_start_token_id"},
    {"<|vision_end|>", 151653, "vision_end_token_id"},
    {"<|vision_pad|>", 151654, "vision_token_id"},
    {"<|image_pad|>", 151655, "image_token_id"},
    {"<|video_pad|>", 151656, "video_token_id"},
}};

constexpr std::array<SpecialToken, 10> kLlama3{{
    {"<|begin_of_text|>", 128000, "bos_token_id"},
    {"<|end_of_text|>", 128001, "eos_token_id"},
    {"<|finetune_right_pad_id|>", 128004, "pad_token_id"},
    {"<|step_id|>", 128005, ""},
    {"<|start_header_id|>", 128006, ""},
    {"<|end_header_id|>", 128007, ""},
    {"<|eom_id|>", 128008, ""},
    {"<|eot_id|>", 128009, ""},
    {"<|python_tag|>", 128010, ""},
    {"<|image|>", 128256, "image_token_index"},
}};

constexpr const char* kQwen2Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr const char* kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr const char* kQwen2Template =
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

constexpr const char* kLlama3TextTemplate =
    "{{ '<|begin_of_text|>' }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

constexpr const char* kLlama3Template =
    "{{ '<|begin_of_text|>' }}{% set ns = namespace(images=false) %}{% for m in messages %}"
    "{% if m['content'] is not string %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{% set ns.images = true %}{% endif %}{% endfor %}{% endif %}"
    "{% endfor %}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}{% else %}"
    "{% set system = '' %}{% set rest = messages %}{% endif %}{% if not ns.images %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n' }}{% if system is string %}{{ system | trim }}{% else %}"
    "{{ system[0]['text'] | trim }}{% endif %}{{ '<|eot_id|>' }}{% endif %}"
    "{% for m in rest %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|image|>' }}{% elif 'text' in part %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

json additional_tokens(std::span<const SpecialToken> tokens) {
  json names = json::array();
  for (const SpecialToken& t : tokens.subspan(1)) names.push_back(t.text);
  return names;
}

json image_settings() {
  return {{"do_convert_rgb", true},
          {"do_resize", true},
          {"do_rescale", true},
          {"do_normalize", true},
          {"image_mean", {0.48145466, 0.4578275, 0.40821073}},
          {"image_std", {0.26862954, 0.26130258, 0.27577711}},
          {"rescale_factor", 1.0 / 255.0}};
}

FamilyFiles qwen2_vl(const json& vision, const char* processor, int max_length) {
  FamilyFiles f;
  f.tokens = kQwen2Vl;
  f.published_vocabulary = 151657;
  f.split = kQwen2Split;
  f.nfc = true;
  f.tokenizer_settings = {{"tokenizer_class", "Qwen2Tokenizer"},
                          {"bos_token", nullptr},
                          {"eos_token", "<|im_end|>"},
                          {"pad_token", "<|endoftext|>"},
                          {"unk_token", nullptr},
                          {"errors", "replace"},
                          {"add_prefix_space", false},
                          {"additional_special_tokens", additional_tokens(kQwen2Vl)},
                          {"model_max_length", max_length},
                          {"padding_side", "left"},
                          {"chat_template", kQwen2Template}};
  f.processor_settings = image_settings();
  f.processor_settings.update({{"image_processor_type", "Qwen2VLImageProcessor"},
                               {"processor_class", processor},
                               {"resample", 3},
                               {"min_pixels", 3136},
                               {"max_pixels", 12845056},
                               {"patch_size", vision.value("patch_size", 14)},
                               {"temporal_patch_size", vision.value("temporal_patch_size", 2)},
                               {"merge_size", vision.value("spatial_merge_size", 2)}});
  f.dense_linears = {"lm_head", "visual.merger", "model.visual.merger"};
  return f;
}

FamilyFiles llama3() {
  FamilyFiles f;
  f.tokens = kLlama3;
  f.published_vocabulary = 128256;
  f.split = kLlama3Split;
  f.ignore_merges = true;
  f.begin = "<|begin_of_text|>";
  f.tokenizer_settings = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                          {"bos_token", "<|begin_of_text|>"},
                          {"eos_token", "<|eot_id|>"},
                          {"pad_token", "<|finetune_right_pad_id|>"},
                          {"clean_up_tokenization_spaces", false},
                          {"model_input_names", {"input_ids", "attention_mask"}},
                          {"model_max_length", 131072},
                          {"padding_side", "right"}};
  f.dense_linears = {"lm_head"};
  return f;
}

FamilyFiles llama() {
  FamilyFiles f = llama3();
  f.tokens = f.tokens.first(f.tokens.size() - 1);  // without <|image|>
  f.tokenizer_settings["chat_template"] = kLlama3TextTemplate;
  return f;
}

FamilyFiles mllama(const json& vision) {
  FamilyFiles f = llama3();
  f.tokenizer_settings["chat_template"] = kLlama3Template;
  const int side = vision.value("image_size", 448);
  f.processor_settings = image_settings();
  f.processor_settings.update({{"image_processor_type", "MllamaImageProcessor"},
                               {"processor_class", "MllamaProcessor"},
                               {"resample", 2},
                               {"do_pad", true},
                               {"max_image_tiles", vision.value("max_num_tiles", 4)},
                               {"size", {{"height", side}, {"width", side}}}});
  f.dense_linears = {"lm_head", "multi_modal_projector", "model.multi_modal_projector"};
  return f;
}

}  // namespace

FamilyFiles family_files(const json& config) {
  const json vision = config.value("vision_config", json::object());
  const std::string type = config.value("model_type", "");
  if (type == "llama") return llama();
  if (type == "mllama") return mllama(vision);
  if (type == "qwen2_5_vl") return qwen2_vl(vision, "Qwen2_5_VLProcessor", 131072);
  return qwen2_vl(vision, "Qwen2VLProcessor", 32768);
}

}  // namespace medvqa::train
