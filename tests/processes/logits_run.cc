#include "processes/logits_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "processes/program.h"
#include "weights/safetensors.h"

namespace cachalot::test {
namespace {

constexpr std::chrono::seconds kPatience{120};  // many ranks on few cores, beside other work

std::vector<std::string> flags_of(const LogitsQuestion& question) {
  std::vector<std::string> flags{"logits",
                                 "--model",
                                 question.model,
                                 "--dtype",
                                 question.dtype,
                                 "--tokens",
                                 fmt::format("{}", fmt::join(question.tokens, ",")),
                                 "--data-parallel-size",
                                 std::to_string(question.layout.dp_size),
                                 "--tensor-parallel-size",
                                 std::to_string(question.layout.tp_size),
                                 "--replica",
                                 std::to_string(question.replica)};
  if (question.layout.expert_parallel) flags.emplace_back("--enable-expert-parallel");
  if (question.generated_from >= 0) {
    flags.emplace_back("--generated-from");
    flags.push_back(std::to_string(question.generated_from));
  }
  flags.insert(flags.end(), question.more_flags.begin(), question.more_flags.end());
  return flags;
}

void read_logits(const std::string& path, std::vector<float>& logits) {
  auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_EQ(file->tensors().size(), 1u);
  const TensorRef& tensor = file->tensors()[0];
  const auto* values = reinterpret_cast<const float*>(tensor.data.data());
  logits.assign(values, values + tensor.data.size() / sizeof(float));
}

void run(const LogitsQuestion& question, LogitsAnswer& answer) {
  const ScratchFolder folder;
  const std::string logits = folder / "logits.safetensors", report = folder / "report.json";
  std::vector<std::string> flags = flags_of(question);
  flags.insert(flags.end(), {"--output", logits, "--report", report});
  Program program(flags);
  const std::optional<int> status = program.wait(kPatience);
  ASSERT_EQ(status, 0) << program.output();
  EXPECT_TRUE(program.wait_for_silence(std::chrono::seconds(5))) << "a rank was left behind";
  read_logits(logits, answer.logits);
  const Result<std::string> text = read_file(report);
  ASSERT_TRUE(text) << text.error().message;
  answer.ranks = boost::json::parse(*text).at("ranks").as_array();
}

}  // namespace

LogitsAnswer run_logits(const LogitsQuestion& question) {
  LogitsAnswer answer;
  run(question, answer);
  return answer;
}

}  // namespace cachalot::test
