// tokenizer.model: SentencePiece's ModelProto in protobuf's wire format, its vocabulary alone.
// Internal to the text module.
//
// Read here and not through libsentencepiece, because transformers' LlamaTokenizer takes the
// vocabulary out of the file and never runs SentencePiece, and needs the kind of every piece, which
// that library keeps to itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace medvqa::text_detail {

struct ModelPiece {
  enum class Kind : std::uint8_t { normal = 1, unknown, control, user_defined, unused, byte };
  std::string text;
  Kind kind = Kind::normal;
};

struct SentencePieceModel {
  static constexpr std::uint64_t kBpe = 2;
  std::uint64_t model_type = 1;  // as TrainerSpec numbers them; 1 is Unigram
  std::vector<ModelPiece> pieces;
};

// Nothing if the bytes are no such message.
std::optional<SentencePieceModel> parse_sentencepiece_model(std::string_view bytes);

}  // namespace medvqa::text_detail
