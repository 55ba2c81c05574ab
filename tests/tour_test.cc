// The shortest tour: a question goes through all parts of Cachalot and comes out as a token, first by hand, part by
// part from below, then as servers do it. docs/architecture.md says more of each part; their order is that of
// src/CMakeLists.txt.
#include <gtest/gtest.h>

#include "comm/expert_exchange.h"
#include "comm/group.h"
#include "engine/rank_engine.h"
#include "engine/round.h"
#include "model/deepseek.h"
#include "model/feed_forward.h"
#include "model/workspace.h"
#include "sampler/sampler.h"
#include "scheduler/scheduler.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

const std::string kFolder = CACHALOT_SOURCE_DIR "/models/nano";
constexpr int kBlockSize = 64;

// text: a chat becomes a prompt by the model's own template, and a prompt becomes token ids.
std::vector<TokenId> prompt_of(const std::string& question) {
  const auto chat_template = ChatTemplate::load(kFolder).value();
  const std::string chat =
      R"({"messages": [{"role": "user", "content": ")" + question + R"("}], "add_generation_prompt": true})";
  return Tokenizer::load(kFolder).value()->encode(chat_template->render(chat).value(), false).value();
}

TokenId token_by_hand(const std::vector<TokenId>& prompt) {
  // weights: config.json, checked once, and the tensors of the safetensors files, mapped and not yet read.
  const ModelFiles files = ModelFiles::open(kFolder).value();
  const ModelConfig& config = files.config();

  // device: cores and their memory. kernels: one table of operations a level, chosen once.
  Device device({.num_threads = 2, .spin_microseconds = 0});
  // placement: which ranks have which experts.
  const ModelSettings settings{.compute_dtype = DType::kBF16,
                               .isa = detect_isa(),
                               .placement = even_placement(config, 1),
                               .max_rows = 128,
                               .max_logit_rows = 1,
                               .max_positions = 256};

  // comm: ranks reach each other through a mesh; the ranks of a replica sum up in a group, and rows find their experts
  // by an exchange. Alone, the same code moves nothing.
  const auto mesh = Mesh::create({}, {}).value();
  const auto group =
      make_message_group(*mesh, {.members = {0}, .max_reduced_bytes = max_reduced_bytes(config, settings)}).value();
  const auto exchange = ExpertExchange::create(*mesh, {0}, exchange_layout(config, settings)).value();

  // model: weights are packed for the kernels; memory for a step is taken once. The KV cache is the caller's.
  const auto model = DeepseekModel::load(config, settings, files, device, *group, exchange.get(), {}).value();
  const std::vector<BlockId> blocks{2, 0, 1, 3};  // position p of the sequence is in block p / 64
  const auto num_slots = static_cast<int64_t>(blocks.size()) * kBlockSize;
  const Buffer memory = Device::allocate(KvCache::bytes(config, DType::kBF16, num_slots)).value();
  const KvCache cache(config, DType::kBF16, memory.data(), num_slots);

  // engine: what sequences bring to a step becomes rows. One step of the whole prompt, and the last row's logits.
  const auto num_tokens = static_cast<int>(prompt.size());
  StepBatch batch(settings.max_rows, kBlockSize);
  batch.add({.num_tokens = num_tokens, .num_prompt_tokens = num_tokens, .tokens = prompt, .blocks = blocks});
  EXPECT_TRUE(model->forward(batch.build(0), cache));
  std::vector<float> logits(static_cast<size_t>(config.vocab_size));
  const std::vector<int32_t> last_row{batch.row_of(0, num_tokens - 1)};
  EXPECT_TRUE(
      model->logits(View<const int32_t, 1>(last_row.data(), 1), View<float, 2>(logits.data(), 1, logits.size())));

  // sampler: logits become a token.
  const SamplingParams greedy{.temperature = 0};
  Sampler sampler(config.vocab_size);
  return sampler
      .sample({.logits = View<const float, 1>(logits.data(), logits.size()),
               .tokens = prompt,
               .newer = {},
               .num_prompt_tokens = num_tokens,
               .sampling = &greedy})
      .value()
      .token;
}

TEST(Tour, AQuestionBecomesATokenPartByPartAndThenAnAnswer) {
  const std::vector<TokenId> prompt = prompt_of("Which one is larger? 3.8 or 3.11");
  const TokenId first = token_by_hand(prompt);

  // scheduler: decides what runs in each step, and gives it blocks of the cache. engine: a rank that runs it.
  const EngineOptions options{.model = kFolder, .max_num_batched_tokens = 128, .max_num_seqs = 1, .threads = 2};
  const auto engine = RankEngine::create(options, {}).value();
  Scheduler scheduler(make_scheduler_options(options, engine->memory().num_blocks, engine->memory().max_model_len));
  Request request{.id = 1, .tokens = prompt, .num_prompt_tokens = static_cast<int>(prompt.size())};
  request.sampling = {.temperature = 0, .max_tokens = 200, .stop_token_ids = engine->config().eos_token_ids};
  ASSERT_TRUE(scheduler.add(std::move(request)));
  std::vector<TokenId> answer;
  while (scheduler.has_work()) {
    for (const RequestOutput& output : scheduler.commit(engine->run(scheduler.plan()).value()))
      for (const SampledToken& token : output.tokens) answer.push_back(token.token);
  }
  ASSERT_FALSE(answer.empty());
  EXPECT_EQ(answer.front(), first);
  // text: ids become text again. What is above (openai, http, serve, router, cluster) carries it to whoever asked.
  const std::string text = Tokenizer::load(kFolder).value()->decode(answer, true);
  EXPECT_TRUE(text.ends_with("3.8 is larger than 3.11.")) << text;
}

}  // namespace
}  // namespace cachalot
