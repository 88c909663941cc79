#include "src/text/sentencepiece_model.h"

#include <utility>

#include "src/text/utf8.h"

namespace medvqa::text_detail {
namespace {

struct Field {
  std::uint64_t number = 0;
  std::uint64_t value = 0;  // of a varint
  std::string_view body;    // of everything else
};

// The fields of one message, in order.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  // False at the end, and when the bytes make no sense: is_broken() tells.
  bool next(Field& field) {
    std::uint64_t key = 0;
    if (rest_.empty() || !read_varint(key)) return false;
    field = {key >> 3, 0, {}};
    switch (key & 7) {
      case 0:
        return read_varint(field.value);
      case 1:
        return take(8, field.body);
      case 2: {
        std::uint64_t size = 0;
        return read_varint(size) && take(size, field.body);
      }
      case 5:
        return take(4, field.body);
      default:
        broken_ = true;
        return false;
    }
  }
  bool is_broken() const { return broken_; }

 private:
  bool read_varint(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<std::uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    broken_ = true;
    return false;
  }
  bool take(std::uint64_t size, std::string_view& body) {
    if (size > rest_.size()) {
      broken_ = true;
      return false;
    }
    body = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(static_cast<std::size_t>(size));
    return true;
  }

  std::string_view rest_;
  bool broken_ = false;
};

std::optional<ModelPiece> parse_piece(std::string_view bytes) {
  constexpr std::uint64_t kText = 1, kKind = 3;
  ModelPiece piece;
  Message message(bytes);
  for (Field field; message.next(field);) {
    if (field.number == kText) piece.text = field.body;
    if (field.number != kKind) continue;
    if (field.value < 1 || field.value > 6) return std::nullopt;
    piece.kind = static_cast<ModelPiece::Kind>(field.value);
  }
  if (message.is_broken() || piece.text.empty() || first_invalid(piece.text)) return std::nullopt;
  return piece;
}

}  // namespace

std::optional<SentencePieceModel> parse_sentencepiece_model(std::string_view bytes) {
  constexpr std::uint64_t kPiece = 1, kTrainer = 2, kModelType = 3;
  SentencePieceModel model;
  Message message(bytes);
  for (Field field; message.next(field);) {
    if (field.number == kPiece) {
      std::optional<ModelPiece> piece = parse_piece(field.body);
      if (!piece) return std::nullopt;
      model.pieces.push_back(std::move(*piece));
    } else if (field.number == kTrainer) {
      Message trainer(field.body);
      for (Field setting; trainer.next(setting);) {
        if (setting.number == kModelType) model.model_type = setting.value;
      }
      if (trainer.is_broken()) return std::nullopt;
    }
  }
  if (message.is_broken() || model.pieces.empty()) return std::nullopt;
  return model;
}

}  // namespace medvqa::text_detail
