#include "engine/logits.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "engine/rank_engine.h"
#include "weights/checkpoint_writer.h"

namespace cachalot {
namespace {

struct LogitsOptions {
  EngineOptions engine;
  std::vector<TokenId> tokens;
  int generated_from = -1;
  std::string output;
};

Status write_logits(const std::string& path, View<const float, 2> logits) {
  ASSIGN_OR_RETURN(
      SafetensorsWriter writer,
      SafetensorsWriter::create(
          path, {{.name = "logits", .dtype = DType::kF32, .shape = {logits.extent(0), logits.extent(1)}}}));
  RETURN_IF_ERROR(
      writer.write("logits", 0, std::as_bytes(std::span(logits.data(), static_cast<size_t>(logits.size())))));
  return writer.finish();
}

Status run_logits(LogitsOptions options) {
  const auto num_tokens = static_cast<int>(options.tokens.size());
  options.engine.num_gpu_blocks_override = (num_tokens + options.engine.block_size - 1) / options.engine.block_size;
  options.engine.max_model_len = num_tokens;
  ASSIGN_OR_RETURN(const auto engine, RankEngine::create(options.engine, {}));
  const int vocab_size = engine->config().vocab_size;
  for (const TokenId token : options.tokens) {
    if (token < 0 || token >= vocab_size)
      return make_parameter_error("--tokens", "--tokens: {} is no token id; the model has 0 to {}", token,
                                  vocab_size - 1);
  }
  std::vector<float> logits(options.tokens.size() * static_cast<size_t>(vocab_size));
  const View<float, 2> view(logits.data(), num_tokens, vocab_size);
  RETURN_IF_ERROR(compute_logits(engine->model(), engine->cache(), options.engine.block_size,
                                 {.tokens = options.tokens, .generated_from = options.generated_from}, view));
  if (!options.output.empty()) return write_logits(options.output, view);
  for (int64_t row = 0; row < num_tokens; row++) {
    const auto best = std::max_element(view.row(row), view.row(row) + vocab_size) - view.row(row);
    fmt::print("token {} (id {}): likeliest next id {}, logit {:.6f}\n", row, options.tokens[static_cast<size_t>(row)],
               best, view(row, best));
  }
  return {};
}

}  // namespace

void add_logits_command(CLI::App& app) {
  auto options = std::make_shared<LogitsOptions>();
  CLI::App* command = app.add_subcommand("logits", "Compute the logits of a sequence of token ids, to compare engines");
  add_engine_flags(*command, options->engine);
  command->add_option("--tokens", options->tokens, "Token ids, separated by commas")->required()->delimiter(',');
  command
      ->add_option("--generated-from", options->generated_from,
                   "Tokens from this index on have the role \"generated\" and come one a step")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--output", options->output,
                      "Write `logits` [num_tokens, vocab_size] F32 to this safetensors file");
  command->callback([options] { finish_command(run_logits(*options)); });
}

}  // namespace cachalot
