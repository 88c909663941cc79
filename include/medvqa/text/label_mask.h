// Which tokens of a sample the loss is taken on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "medvqa/text/span.h"
#include "medvqa/text/tokenizer.h"

namespace medvqa {

enum class LossOn {
  answer,  // the answers' tokens and the end-of-turn token after each
  all,     // every token
};

inline constexpr std::int32_t kNoLabel = -100;

// Labels in Hugging Face's form: the token's own id, unshifted, or kNoLabel. With `answer` a token
// counts if its offsets overlap one of `answers` (RenderedChat::answers, ascending); in either case
// the ids of `unlabelled` (padding and vision placeholders) do not.
std::vector<std::int32_t> make_labels(const Encoding& encoding, std::span<const Span> answers,
                                      LossOn loss_on, std::span<const std::int32_t> unlabelled);

}  // namespace medvqa
