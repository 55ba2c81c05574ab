// Sparse attention against the dense one of the same weights: where a row sees no more than index_topk positions they
// are the same, bit for bit.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "golden_cases.h"
#include "model_harness.h"
#include "weights/checkpoint_writer.h"
#include "weights/safetensors.h"

namespace cachalot::test {
namespace {

// A copy of a golden folder with keys of config.json set (or gone, where null), and without the tensors whose names
// hold `left_out`.
void write_copy(const std::string& golden, const std::string& changes, const std::string& left_out,
                const std::string& folder) {
  boost::json::object config =
      boost::json::parse(read_file(golden_folder(golden) + "/config.json").value()).as_object();
  const boost::json::object changed = boost::json::parse(changes).as_object();
  for (const auto& [key, value] : changed) config[key] = value;
  const auto file = SafetensorsFile::open(golden_folder(golden) + "/model.safetensors");
  ASSERT_TRUE(file) << file.error().message;
  const auto is_kept = [&](const TensorRef& tensor) {
    return left_out.empty() || tensor.spec.name.find(left_out) == std::string::npos;
  };
  std::vector<TensorSpec> specs;
  for (const TensorRef& tensor : file->tensors())
    if (is_kept(tensor)) specs.push_back(tensor.spec);
  auto writer = CheckpointWriter::create(folder, specs, uint64_t{1} << 30);
  ASSERT_TRUE(writer) << writer.error().message;
  for (const TensorRef& tensor : file->tensors()) {
    if (is_kept(tensor)) {
      ASSERT_TRUE(writer->write(tensor.spec.name, tensor.data));
    }
  }
  ASSERT_TRUE(writer->finish());
  ASSERT_TRUE(write_file(folder + "/config.json", boost::json::serialize(config)));
}

constexpr const char* kDense = R"({"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
    "index_topk": null, "index_n_heads": null, "index_head_dim": null, "indexer_types": null, "index_topk_freq": null,
    "index_skip_topk_offset": null, "indexer_rope_interleave": null})";

class SparseAttention : public testing::TestWithParam<std::string> {
 protected:
  // The logits' first `num_tokens` rows.
  static std::vector<float> first_rows(const RunResult& result, size_t num_tokens) {
    constexpr size_t kVocab = 256;
    return {result.logits.begin(), result.logits.begin() + static_cast<std::ptrdiff_t>(num_tokens * kVocab)};
  }
};

TEST_P(SparseAttention, IsTheDenseOneUpToIndexTopkToTheBit) {
  const TestFolder folder;
  write_copy(GetParam(), kDense, ".indexer.", folder.path("dense"));
  write_copy(GetParam(), R"({"index_topk": 90})", "", folder.path("topk90"));
  if (HasFatalFailure()) return;
  const std::vector<TokenId> tokens = load_golden_cases(GetParam()).back().tokens;
  for (const auto& [dtype, generated_from, tp_size] :
       {std::tuple{DType::kBF16, -1, 1}, {DType::kBF16, 5, 1}, {DType::kBF16, 80, 2}, {DType::kF32, 5, 2}}) {
    const RunOptions options{.compute_dtype = dtype,
                             .isa = detect_isa(),
                             .layout = {.dp_size = 1, .tp_size = tp_size},
                             .generated_from = generated_from,
                             .chunk = 50};
    ModelRun dense(folder.path("dense"), options), wide(folder.path("topk90"), options),
        sparse(golden_folder(GetParam()), options);
    const RunResult of_dense = dense.logits(tokens), of_wide = wide.logits(tokens), of_sparse = sparse.logits(tokens);
    const auto topk = static_cast<size_t>(sparse.config().indexer->topk);
    const std::string what = fmt::format("{}, generated from {}, TP {}", dtype_name(dtype), generated_from, tp_size);
    EXPECT_TRUE(same_bits(first_rows(of_wide, 90), first_rows(of_dense, 90))) << what;
    EXPECT_FALSE(same_bits(of_wide.logits, of_dense.logits)) << what;
    EXPECT_TRUE(same_bits(first_rows(of_sparse, topk), first_rows(of_dense, topk))) << what;
    EXPECT_FALSE(same_bits(first_rows(of_sparse, topk + 20), first_rows(of_dense, topk + 20))) << what;
  }
}

INSTANTIATE_TEST_SUITE_P(All, SparseAttention, testing::ValuesIn(kSparseGoldenNames), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

}  // namespace
}  // namespace cachalot::test
