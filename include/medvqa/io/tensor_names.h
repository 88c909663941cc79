// Names of tensors. Inside the program they are those of transformers 5 ("canonical"); files of the
// Hub, and adapters made before transformers 4.52, carry older prefixes.
//
//            canonical                      on the Hub
// qwen2_vl   model.visual.                  visual.
//            model.language_model.          model.
// mllama     model.vision_model.            vision_model.
//            model.multi_modal_projector.   multi_modal_projector.
//            model.language_model.          language_model.model.
//            lm_head.                       language_model.lm_head.
#pragma once

#include <string>
#include <string_view>

namespace medvqa::io {

// plain: both names are the same (Llama, Qwen2 and other text models).
enum class NameStyle { plain, qwen2_vl, mllama };

// By config.json's model_type; qwen2_5_vl is styled qwen2_vl.
NameStyle name_style_of(std::string_view model_type);

// Accepts either form. Works for names of tensors and of modules, with any suffix.
std::string canonical_name(NameStyle style, std::string_view stored);
std::string hub_name(NameStyle style, std::string_view canonical);

}  // namespace medvqa::io
