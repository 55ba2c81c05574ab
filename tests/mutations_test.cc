// Each key of the built-in model's files in turn takes values that do not belong there. Whatever they are, the model
// starts, or an error names the file and the key; nothing aborts, hangs or fills the memory.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <functional>

#include "base/file.h"
#include "base/folder_test_util.h"
#include "engine/rank_engine.h"
#include "text/chat_template.h"
#include "text/folder_config.h"
#include "text/tokenizer.h"
#include "weights/model_files.h"

namespace cachalot {
namespace {

namespace json = boost::json;

const std::string kNano = std::string(CACHALOT_SOURCE_DIR) + "/models/nano";

const std::vector<json::value>& values() {
  static const std::vector<json::value> kValues = [] {
    std::vector<json::value> list;
    for (const char* text : {"null",
                             "true",
                             "false",
                             "0",
                             "1",
                             "-1",
                             "2",
                             "3",
                             "0.5",
                             "1e300",
                             "-1e300",
                             "600",
                             "65536",
                             "1048576",
                             "2147483647",
                             "2147483648",
                             "4294967295",
                             "9223372036854775807",
                             "18446744073709551615",
                             R"("")",
                             R"("x")",
                             R"("\u0000\u001b[2J")",
                             "[]",
                             "[1]",
                             R"(["x", 2])",
                             "[[[[[[[[[[1]]]]]]]]]]",
                             "{}",
                             R"({"a": 1})",
                             R"({"type": "x", "rope_type": 5})"})
      list.push_back(json::parse(text));
    return list;
  }();
  return kValues;
}

class Mutations : public testing::Test {
 protected:
  Mutations() {
    for (const auto& entry : std::filesystem::directory_iterator(kNano))
      if (entry.path().extension() == ".json" && entry.path().filename() != "greedy.json")
        std::filesystem::copy_file(entry.path(), folder_.path(entry.path().filename().string()));
    std::filesystem::create_symlink(kNano + "/model.safetensors", folder_.path("model.safetensors"));
  }

  // What `serve` does before it listens; the engine, which takes longest, for some.
  Status start(bool with_engine) {
    const std::string& folder = folder_.path();
    ASSIGN_OR_RETURN(const ModelConfig config, load_model_config(folder));
    ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::load(folder, config.vocab_size));
    ASSIGN_OR_RETURN(const GenerationConfig generation, load_generation_config(folder, config.vocab_size));
    for (const std::string_view text : {"Which one is larger? 3.8 or 3.11", "<｜User｜>\xe6\xbc\xa2 x"})
      (void)tokenizer->encode(text, true);  // an error is the request's
    const auto chat_template = ChatTemplate::load(folder);
    if (chat_template) {
      (void)(*chat_template)
          ->render(R"({"messages": [{"role": "user", "content": "3"}], "add_generation_prompt": true})");
    } else if (chat_template.error().code != ErrorCode::kNotFound) {
      return std::unexpected(chat_template.error());
    }
    ASSIGN_OR_RETURN(const ModelFiles files, ModelFiles::open(folder));
    if (!with_engine) return {};
    const EngineOptions options{
        .model = folder, .max_num_batched_tokens = 64, .num_gpu_blocks_override = 2, .threads = 1};
    ASSIGN_OR_RETURN(const auto engine, RankEngine::create(options, {}));
    return {};
  }

  // Every value in the place that `key` finds in the file's JSON.
  void mutate(const std::string& file, const std::string& key, const std::function<json::value&(json::value&)>& place) {
    const std::string original = read_file(folder_.path(file)).value();
    for (const json::value& value : values()) {
      json::value root = json::parse(original);
      place(root) = value;
      ASSERT_TRUE(write_file(folder_.path(file), json::serialize(root)));
      const Status started = start(num_started_ % 64 == 0);
      if (started) {
        num_started_++;
      } else {
        num_refused_++;
        const std::string& message = started.error().message;
        EXPECT_NE(message.find(file), std::string::npos) << file << " " << key << " = " << value << ": " << message;
        // Where the file is right in itself, the error names the tensor or shard that contradicts it.
        const bool names_place = message.contains(key) || message.contains("bos_token") || message.contains("tensor") ||
                                 message.contains("files that");
        EXPECT_TRUE(names_place) << file << " " << key << " = " << value << ": " << message;
        EXPECT_TRUE(std::ranges::none_of(message, [](unsigned char c) { return c < ' '; })) << message;
      }
    }
    ASSERT_TRUE(write_file(folder_.path(file), original));
  }

  void mutate_members(const std::string& file, const std::string& inner = {}) {
    json::value root = json::parse(read_file(folder_.path(file)).value());
    const json::value& object = inner.empty() ? root : root.at(inner);
    for (const auto& [name, unused] : object.as_object()) {
      const std::string key = name;
      mutate(file, key, [&](json::value& mutated) -> json::value& {
        return (inner.empty() ? mutated : mutated.at(inner)).as_object()[key];
      });
    }
  }

  void TearDown() override {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    EXPECT_LT(usage.ru_maxrss, 1 << 20) << "KiB";
    EXPECT_GT(num_refused_, 20);
    EXPECT_GT(num_started_, 0);
  }

  const TestFolder folder_;
  int num_started_ = 0, num_refused_ = 0;
};

TEST_F(Mutations, OfConfigJson) {
  mutate_members("config.json");
  mutate_members("config.json", "rope_scaling");
  for (const char* key : {"rope_parameters", "quantization_config", "index_topk", "sliding_window", "layer_types",
                          "mlp_layer_types", "text_config", "use_sliding_window", "num_experts"})
    mutate("config.json", key, [&](json::value& root) -> json::value& { return root.as_object()[key]; });
}

// The places of all values inside, as JSON pointers.
void find_places(const json::value& value, const std::string& place, std::vector<std::string>& places) {
  if (!place.empty()) places.push_back(place);
  if (const json::object* object = value.if_object())
    for (const auto& [key, inner] : *object) find_places(inner, place + "/" + std::string(key), places);
  if (const json::array* list = value.if_array(); list && !list->empty()) find_places((*list)[0], place + "/0", places);
}

// The same of the files of newer models, which have a language model inside, and compressed-tensors' words.
TEST(NewerMutations, OfEveryPlaceInConfigJson) {
  for (const auto& [name, root] : std::vector<std::pair<std::string, std::string>>{
           {"k25-ct-int4", ""}, {"k2-ct-fp8", "/quantization_config"}, {"k2-ct-mxfp4", "/quantization_config"}}) {
    const std::string golden = std::string(CACHALOT_SOURCE_DIR) + "/tests/data/golden/" + name;
    const TestFolder folder;
    std::filesystem::create_symlink(golden + "/model.safetensors", folder.path("model.safetensors"));
    const json::value original = json::parse(read_file(golden + "/config.json").value());
    std::vector<std::string> places;
    find_places(root.empty() ? original : original.at_pointer(root), root, places);
    EXPECT_GT(places.size(), 20u);
    int num_opened = 0, num_refused = 0;
    for (const std::string& place : places) {
      for (const json::value& value : values()) {
        json::value mutated = original;
        json::error_code fault;
        *mutated.find_pointer(place, fault) = value;
        ASSERT_TRUE(write_file(folder.path("config.json"), json::serialize(mutated)));
        const Result<ModelFiles> files = ModelFiles::open(folder.path());
        (files ? num_opened : num_refused)++;
        if (files) continue;
        // An error names the key, one of its object, or a tensor that contradicts it.
        const std::string& message = files.error().message;
        const std::string parent = place.substr(0, place.rfind('/'));
        const bool names_place = message.contains(place.substr(place.rfind('/') + 1)) || message.contains("tensor") ||
                                 message.contains(parent.substr(parent.rfind('/') + 1));
        EXPECT_TRUE(names_place) << place << " = " << value << ": " << message;
        EXPECT_TRUE(std::ranges::none_of(message, [](unsigned char c) { return c < ' '; })) << message;
      }
    }
    EXPECT_GT(num_opened, 100);
    EXPECT_GT(num_refused, 100);
  }
}

TEST_F(Mutations, OfGenerationConfig) {
  mutate_members("generation_config.json");
  for (const char* key : {"top_k", "min_p", "repetition_penalty", "max_new_tokens"})
    mutate("generation_config.json", key, [&](json::value& root) -> json::value& { return root.as_object()[key]; });
}

TEST_F(Mutations, OfTokenizerConfig) {
  mutate_members("tokenizer_config.json");
  mutate_members("tokenizer_config.json", "bos_token");
}

TEST_F(Mutations, OfTokenizerJson) {
  const auto anything = [&](const std::function<json::value&(json::value&)>& place) {
    mutate("tokenizer.json", "", place);
  };
  const json::value root = json::parse(read_file(folder_.path("tokenizer.json")).value());
  for (const auto& [name, unused] : root.as_object()) {
    const std::string key = name;
    anything([&](json::value& mutated) -> json::value& { return mutated.as_object()[key]; });
  }
  for (const auto& [name, unused] : root.at("model").as_object()) {
    const std::string key = name;
    anything([&](json::value& mutated) -> json::value& { return mutated.at("model").as_object()[key]; });
  }
  for (const auto& [name, unused] : root.at("added_tokens").as_array()[0].as_object()) {
    const std::string key = name;
    anything([&](json::value& mutated) -> json::value& {
      return mutated.at("added_tokens").as_array()[0].as_object()[key];
    });
  }
  anything([](json::value& mutated) -> json::value& {
    return mutated.at("model").at("vocab").as_object().begin()->value();
  });
  anything([](json::value& mutated) -> json::value& { return mutated.at("model").at("merges").as_array()[3]; });
}

TEST_F(Mutations, OfAnIndex) {
  const std::string name = "model.safetensors.index.json";
  json::object map;
  const ModelFiles files = ModelFiles::open(kNano).value();
  for (const auto& [tensor, unused] : files.checkpoint().tensors()) map[tensor] = "model.safetensors";
  ASSERT_TRUE(write_file(folder_.path(name),
                         json::serialize(json::object{{"metadata", {{"total_size", 1}}}, {"weight_map", map}})));
  ASSERT_TRUE(start(true));
  mutate(name, "weight_map", [](json::value& root) -> json::value& { return root.at("weight_map"); });
  mutate(name, "", [](json::value& root) -> json::value& { return root.at("metadata"); });
  mutate(name, "model.norm.weight",
         [](json::value& root) -> json::value& { return root.at("weight_map").at("model.norm.weight"); });
  mutate(name, "", [](json::value& root) -> json::value& { return root; });
}

}  // namespace
}  // namespace cachalot
