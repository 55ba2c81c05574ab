#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "openai/answer/answer_format.h"

namespace cachalot::openai {

// A part of an answer in protocols that tell it as a list of parts, each of which begins, grows and ends by events of
// its own: OpenAI's items of Responses, Anthropic's content blocks.
struct Block {
  enum class Kind { kThought, kText, kCall };
  Kind kind = Kind::kText;
  size_t index = 0;  // among the blocks of the answer
  std::string text;  // so far; of a call its arguments
  // Of a call.
  size_t call = 0;
  std::string name, call_id;          // the id: that the model gave it, or empty
  std::vector<ReportedToken> tokens;  // of a text whose probabilities are reported
};

// A format of one choice as blocks. White space in front of a text waits until something follows: what stands between a
// thought and a call is no text.
class BlockFormat : public AnswerFormat {
 public:
  std::string whole(std::span<ChoiceText> choices, const Usage& usage) final;
  void begin(size_t num_choices, const Usage& usage, std::string& events) final;
  void add(size_t index, const ChoiceText& text, const std::optional<Usage>& usage, std::string& events) final;
  void end(const Usage& usage, std::string& events) final;
  void fail(const ApiError& error, std::string& events) final;
  bool tells_of_aborts() const final { return false; }

 protected:
  virtual void write_begin(const Usage& usage) = 0;
  virtual void write_block_begin(const Block& block) = 0;
  // `tokens`: those of the piece whose probabilities are reported.
  virtual void write_piece(const Block& block, std::string_view piece, std::span<const ReportedToken> tokens) = 0;
  // `is_cut`: the answer ended before the block did.
  virtual void write_block_end(const Block& block, bool is_cut) = 0;
  virtual void write_end(const Usage& usage) = 0;
  virtual void write_failure(const ApiError& error) = 0;
  // Behind the end of its last block.
  virtual std::string whole_answer(const Usage& usage) = 0;
  // Whether an answer with nothing in it has an empty text.
  virtual bool wants_some_text() const = 0;

  // Where events are to be appended; null: the answer is not streamed.
  std::string* events() const { return events_; }
  FinishReason finish() const { return finish_; }
  bool has_called() const { return has_called_; }
  const boost::json::value& stop_reason() const { return stop_reason_; }  // as ChoiceText's

 private:
  void take(const ChoiceText& text);
  void take_text(const ChoiceText& text);
  void take_call(const ToolCallPiece& call);
  void open(Block block);
  void grow(std::string_view piece, std::span<const ReportedToken> tokens = {});
  void close(bool is_cut);
  void close_last();

  std::string* events_ = nullptr;
  std::optional<Block> block_;  // that is open
  size_t num_blocks_ = 0;
  bool has_answered_ = false;           // there was a text or a call
  std::string space_;                   // before a text, if one follows,
  std::vector<ReportedToken> waiting_;  // and its tokens
  FinishReason finish_ = FinishReason::kNone;
  bool has_called_ = false;
  boost::json::value stop_reason_;
};

}  // namespace cachalot::openai
