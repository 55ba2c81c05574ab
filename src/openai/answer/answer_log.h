#pragma once

#include <boost/json/array.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/generation.h"
#include "http/message.h"

namespace cachalot::openai {

// What a router keeps of an answer, so that another server can go on with it when this one is gone: a function of the
// request and the tokens, the answer needs nothing else. In the stream, for the router alone, stand records, each a
// comment of server-sent events behind the events that it accounts for:
//
//   :@b {"name": ..., "created": ..., ...}    how the answer begins (AnswerStart)
//   :@t CHOICE CACHED FINISH TOKENS           one output of the engine; the finish is s (stop), l (length) or -
//   :@                                        nothing that need be kept
//   :@x                                       the server gives the answer up, with what stands before this
//   :@f                                       the same, since its own engine failed, perhaps by this very request
//   :@e                                       the answer is whole
//
// TOKENS are ids with commas between them; where probabilities have to be told again, ID=LOGPROB/RANK, followed by as
// many ;ID=LOGPROB/RANK of alternatives. What stands between two records is passed on with the second or not at all.
// The records of kinds b and t, one behind the other, are the answer's log. A server that gets one in front of a
// request's body tells itself what the other server told, in the same pieces, and goes on behind that.
namespace answer_log {

// Of a request: how many bytes of log its body begins with; 0: a log is wanted, that is all. Of a response: kEvents or
// kWhole, then the server's mark and its fingerprint. kWhole: what the records account for is no stream, but at its end
// a whole answer (format_whole).
inline constexpr std::string_view kField = "X-Cachalot-Log";
inline constexpr std::string_view kEvents = "events", kWhole = "whole";

inline constexpr std::string_view kBegin = ":@b", kTokens = ":@t", kPass = ":@\n\n", kGivenUp = ":@x\n\n",
                                  kFailed = ":@f\n\n", kEnd = ":@e\n\n";

}  // namespace answer_log

// What an answer has that does not follow from its request.
struct AnswerStart {
  std::string name, response_id;
  int64_t created = 0;
  uint64_t seed = 0;
  std::string fingerprint;    // of servers that give the same bits
  boost::json::array stored;  // responses that the request refers to, as StoredResponse with an id
};

struct AnswerLog {
  struct Entry {
    size_t choice = 0;
    RequestOutput output;
  };
  AnswerStart start;
  std::vector<Entry> entries;
};

std::string start_record(const AnswerStart& start);
std::string output_record(size_t choice, const RequestOutput& output, bool with_logprobs);
// kCorrupt: it is none.
Result<AnswerLog> parse_answer_log(std::string_view text);

// A whole answer as it stands in a log's stream: its status, its fields, an empty line, its body.
std::string format_whole(const http::Response& response);
Result<http::Response> parse_whole(std::string_view text);

}  // namespace cachalot::openai
