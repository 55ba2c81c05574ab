#include "targets.h"

#include <sys/stat.h>

#include <boost/json.hpp>
#include <filesystem>
#include <string>

#include "agents/agent.h"
#include "agents/log_state.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cluster/run_folder.h"
#include "comm/membership/wire.h"
#include "config/cluster_file.h"
#include "config/cluster_layout.h"
#include "config/end_report.h"
#include "config/json.h"
#include "config/model_config.h"
#include "eval/score.h"
#include "http/message.h"
#include "openai/answer/answer_log.h"
#include "openai/api_address.h"
#include "openai/keys/api_keys.h"
#include "openai/messages/messages_request.h"
#include "openai/request/chat_request.h"
#include "openai/request/generation_params.h"
#include "openai/responses/response_items.h"
#include "openai/responses/responses_request.h"
#include "placement/balance.h"
#include "placement/expert_placement.h"
#include "placement/loss.h"
#include "preflight/cluster_check.h"
#include "router/answer_keeper.h"
#include "router/forwarding.h"
#include "router/replica_table.h"
#include "router/request_facts.h"
#include "serve/server_state.h"
#include "telemetry/trace.h"
#include "text/chat_template.h"
#include "text/folder_config.h"
#include "text/tokenizer.h"
#include "weights/checkpoint.h"
#include "weights/safetensors.h"

namespace cachalot::fuzz {
namespace {

namespace json = boost::json;

// What goes into logs, JSON and terminals.
void check_text(const std::string& text) {
  CHECK(to_valid_utf8(text) == text, "{}", quoted(text, text.size()));
  for (const char c : text)
    CHECK(c == '\n' || (static_cast<uint8_t>(c) >= ' ' && c != 0x7f), "{}", quoted(text, text.size()));
}

template <class Value>
bool passed(const Result<Value>& result) {
  if (!result) check_text(result.error().message);
  return result.has_value();
}

// A model's folder in memory with one file of it written anew each time; goes with the process.
class Folder {
 public:
  Folder() {
    std::string pattern = "/dev/shm/cachalot-fuzz-XXXXXX";
    CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& with(const std::string& name, std::string_view bytes) const {
    CHECK(write_file(path_ + "/" + name, bytes).has_value());
    return path_;
  }

 private:
  std::string path_;
};

void read_config(std::string_view bytes) {
  passed(parse_model_config(std::string(bytes), "config.json"));
}

void read_generation_config(std::string_view bytes) {
  passed(parse_generation_config(std::string(bytes), "generation_config.json"));
}

void read_cluster(std::string_view bytes) {
  auto cluster = parse_cluster_file(std::string(bytes), "cluster.yaml");
  if (passed(cluster)) passed(place_replicas(*cluster));
}

void read_tokenizer_file(const std::string& name, std::string_view bytes) {
  static const Folder folders[2];
  const auto tokenizer = Tokenizer::load(folders[name == "tokenizer.json"].with(name, bytes));
  if (!passed(tokenizer)) return;
  const auto ids = (*tokenizer)->encode("The whale's 12 songs\n\t\xf0\x9f\x90\x8b <|end|>", true);
  if (!passed(ids)) return;
  for (const TokenId id : *ids) CHECK(id >= 0 && id < (*tokenizer)->vocab_size());
  (*tokenizer)->decode(*ids, false);
}

void read_tokenizer(std::string_view bytes) {
  read_tokenizer_file("tokenizer.json", bytes);
}

void read_tiktoken(std::string_view bytes) {
  read_tokenizer_file("tiktoken.model", bytes);
}

void read_tokenizer_config(std::string_view bytes) {
  static const Folder folder;
  passed(load_tokenizer_config(folder.with("tokenizer_config.json", bytes)));
}

void render_template(std::string_view bytes) {
  const auto chat_template = ChatTemplate::from_source(bytes, "<bos>", "<eos>");
  if (!passed(chat_template)) return;
  passed(
      (*chat_template)->render(R"({"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
                         "tools": [{"type": "function", "function": {"name": "f"}}], "add_generation_prompt": true})"));
}

void read_safetensors(std::string_view bytes) {
  for (const uint64_t file_size : {uint64_t{bytes.size()}, uint64_t{bytes.size()} + 4096}) {
    const auto places = parse_safetensors_header(std::as_bytes(std::span(bytes)), file_size, "model.safetensors");
    if (!passed(places)) continue;
    for (const TensorPlace& place : *places) CHECK(place.begin <= place.end && place.end <= file_size);
  }
}

void read_index(std::string_view bytes) {
  static const Folder folder;
  static const std::string kHeader = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  static const bool written = [] {
    std::string file(8, '\0');
    file[0] = static_cast<char>(kHeader.size());
    folder.with("one.safetensors", file + kHeader + "abcd");
    return true;
  }();
  CHECK(written);
  passed(Checkpoint::open(folder.with("model.safetensors.index.json", bytes)));
}

void read_request(std::string_view bytes) {
  const auto body = openai::parse_body(bytes);
  if (!body) return;
  const openai::RequestLimits limits{.vocab_size = 1000, .max_model_len = 4096};
  if (const auto chat = openai::parse_chat_request(*body, {}, limits)) {
    static const auto chat_template =
        ChatTemplate::from_source("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", "<bos>", "<eos>");
    passed(openai::render(chat->conversation, **chat_template));
  }
  (void)openai::parse_completion_request(*body, {}, limits);
  (void)openai::parse_messages_request(*body, {}, limits);
  static openai::ResponseStore store(1 << 20);
  if (const auto response = openai::parse_responses_request(*body, {}, limits, store, ""))
    CHECK(!boost::json::parse(openai::shown_input_items(response->input_items, store.make_id())).as_array().empty());
}

template <class Message>
void decode_as(std::string_view payload) {
  const auto message = control::decode<Message>(payload);
  if (!passed(message)) return;
  // What was understood is said again in the same bytes.
  CHECK(control::encode(*message) == payload);
}

void read_membership(std::string_view bytes) {
  const auto header = control::decode_header(bytes.substr(0, control::kFrameHeaderBytes), control::kMaxMessageBytes);
  if (!passed(header)) return;
  const std::string_view payload = bytes.substr(std::min(bytes.size(), control::kFrameHeaderBytes));
  passed(control::decode_introduction(payload));
  decode_as<control::Challenge>(payload);
  decode_as<control::Hello>(payload);
  decode_as<control::Accepted>(payload);
  decode_as<control::Refused>(payload);
  decode_as<control::Formed>(payload);
  decode_as<control::Heartbeat>(payload);
  decode_as<control::Failure>(payload);
  decode_as<control::Left>(payload);
}

void read_router(std::string_view bytes) {
  router::read_request_facts(bytes);
  passed(router::parse_load_report(bytes));
  // Events pass whole and unchanged, however they are cut on the way.
  router::EventBoundary boundary;
  std::string passed_on;
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = std::min<size_t>(bytes.size() - at, 1 + static_cast<uint8_t>(bytes[at]) % 7);
    passed_on += boundary.pass(std::string(bytes.substr(at, length)));
    at += length;
  }
  CHECK(passed_on + boundary.take_rest() == bytes);
}

// A replica's answer with its log, as a router splits it, and as the next server reads what the router kept.
void read_answer_log(std::string_view bytes) {
  const auto read = [&](size_t most) {
    router::LogReader reader;
    router::LogReader::Step all;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = std::min(bytes.size() - at, 1 + static_cast<uint8_t>(bytes[at]) % most);
      const router::LogReader::Step step = reader.pass(bytes.substr(at, length));
      at += length;
      // Behind a word of giving up nobody reads on.
      all.events += step.events, all.records += step.records, all.last_words += step.last_words;
      all.has_news |= step.has_news, all.is_whole |= step.is_whole;
      all.is_given_up |= step.is_given_up, all.has_failed |= step.has_failed;
      if (all.is_given_up) break;
    }
    return all;
  };
  const router::LogReader::Step in_pieces = read(7), by_bytes = read(1);
  CHECK(in_pieces.events == by_bytes.events && in_pieces.is_given_up == by_bytes.is_given_up);
  if (!by_bytes.is_given_up) CHECK(in_pieces.records == by_bytes.records && in_pieces.is_whole == by_bytes.is_whole);
  for (const std::string_view log : {std::string_view(by_bytes.records), bytes}) {
    const auto parsed = openai::parse_answer_log(log);
    if (!passed(parsed)) continue;
    std::string told = openai::start_record(parsed->start);
    for (const auto& [choice, output] : parsed->entries) told += openai::output_record(choice, output, true);
    const auto again = openai::parse_answer_log(told);
    CHECK(again.has_value() || told.contains(openai::answer_log::kPass), "{}", cachalot::quoted(told));
  }
  passed(openai::parse_whole(bytes));
  if (const auto trace = telemetry::parse_traceparent(bytes))
    CHECK(telemetry::parse_traceparent(telemetry::to_traceparent(*trace)).has_value());
}

void read_keys(std::string_view bytes) {
  static const Folder folder;
  const std::string path = folder.with("keys.yaml", bytes) + "/keys.yaml";
  CHECK(chmod(path.c_str(), S_IRUSR | S_IWUSR) == 0);
  const auto keys = openai::read_api_key_file(path);
  if (!passed(keys)) return;
  for (const openai::ApiKey& key : *keys) CHECK(!key.name.empty() && !key.key.empty());
}

void read_placement(std::string_view bytes) {
  if (const auto load = ExpertLoad::parse(bytes, "load.json"); passed(load))
    for (const std::vector<double>& layer : load->layers) CHECK(layer.size() == load->num_experts());
  const auto placement = ExpertPlacement::parse(bytes, "placement.json");
  if (!passed(placement)) return;
  const auto again = ExpertPlacement::parse(placement->to_json(), "placement.json");
  CHECK(again.has_value() && again->hash() == placement->hash());
  const int lost[] = {0};
  if (placement->shape().num_ranks > 1) check_text(placement_after_loss(*placement, lost).text());
}

// What an agent hears from others, each word behind two bytes: of whom it is, and its length. And a file of its log.
class DeafHost : public agents::AgentHost {
 public:
  void send(int, std::string) override {}
  void start_rank(int, uint64_t) override {}
  void kill_rank(int, uint64_t) override {}
  void tell_rank(int, uint64_t, const agents::Order&) override {}
  uint64_t random() override { return ++number_; }
  void write(std::string, std::function<void(Status)> done) override { writes_.push_back(std::move(done)); }
  void write_all() {
    for (const auto& done : std::exchange(writes_, {})) done({});
  }

 private:
  uint64_t number_ = 0;
  std::vector<std::function<void(Status)>> writes_;
};

void tell_agent(std::string_view bytes) {
  passed(agents::decode_state(bytes));
  decode_as<agents::LogState>(bytes);
  DeafHost host;
  agents::Agent::Time now{};
  const agents::AgentOptions options{.server = 0, .num_servers = 3, .ranks_per_server = 2};
  agents::Agent agent(options, std::nullopt, host, now);
  while (bytes.size() > 2) {
    const auto server = static_cast<uint8_t>(bytes[0]) % 4;
    const size_t length = std::min<size_t>(static_cast<uint8_t>(bytes[1]), bytes.size() - 2);
    agent.receive(now, server, bytes.substr(2, length));
    bytes.remove_prefix(2 + length);
    now += agent.tick_interval();
    agent.tick(now);
    host.write_all();
  }
}

// What a process of ours, a node, or some server of this API answers to another process of ours.
void read_answer(std::string_view bytes) {
  const std::string text(bytes);
  if (const auto state = parse_server_state(bytes, 64); passed(state)) {
    const auto again = parse_server_state(to_json(*state), 64);
    CHECK(again.has_value() && to_json(*again) == to_json(*state));
  }
  if (const auto state = parse_cluster_state(text, "state.json"); passed(state)) {
    const auto again = parse_cluster_state(to_json(*state), "state.json");
    CHECK(again.has_value() && to_json(*again) == to_json(*state));
  }
  if (const auto report = parse_end_report(bytes)) check_text(report->text());
  check_text(openai::refusal(500, bytes).message);
  passed(parse_questions(bytes, "questions.jsonl"));
  http::SseParser events;
  for (size_t at = 0; at < bytes.size(); at += 5) {
    if (!events.add(bytes.substr(at, 5))) break;
  }

  CheckedCluster checked;
  checked.nodes.resize(2, {.address = "10.0.0.1", .num_ranks = 2, .num_sharing = 2});
  if (auto report = from_json_line<NodeReport>(text); passed(report)) {
    for (CheckedNode& node : checked.nodes) node.report = *report;
    checked.nodes[1].report->version = "1.0";
    judge_nodes({}, {}, checked);
  }
  if (auto links = parse_link_matrix(text, 2); passed(links)) {
    checked.links = *links;
    judge_links(checked);
  }
  check_text(cachalot::check_text(checked));
  check_json(checked);
}

// The words of a command line, one a line; and the same bytes as a file of flags.
void read_command_line(std::string_view bytes) {
  static const std::unique_ptr<CLI::App> program = make_program();
  static const Folder folder;
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= bytes.size();) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    std::string word(bytes.substr(begin, end - begin));
    if (!word.starts_with("--config")) words.push_back(std::move(word));
    begin = end + 1;
  }
  for (const char* command : {"serve", "chat", "router"})
    passed(read_arguments(*program->get_subcommand(command), words));
  const std::string path = folder.with("flags.yaml", bytes) + "/flags.yaml";
  passed(read_arguments(*program->get_subcommand("serve"), std::vector<std::string>{"--config", path}));
}

constexpr Target kTargets[] = {
    {"config", read_config, 1 << 16},
    {"generation_config", read_generation_config, 1 << 14},
    {"cluster", read_cluster, 1 << 14},
    {"tokenizer", read_tokenizer, 1 << 16},
    {"tiktoken", read_tiktoken, 1 << 14},
    {"tokenizer_config", read_tokenizer_config, 1 << 14},
    {"chat_template", render_template, 1 << 13},
    {"safetensors", read_safetensors, 1 << 14},
    {"index", read_index, 1 << 14},
    {"request", read_request, 1 << 14},
    {"membership", read_membership, 1 << 12},
    {"router", read_router, 1 << 14},
    {"answer", read_answer, 1 << 14},
    {"answer_log", read_answer_log, 1 << 14},
    {"keys", read_keys, 1 << 13},
    {"placement", read_placement, 1 << 14},
    {"agent", tell_agent, 1 << 12},
    {"http", talk_to_server, 1 << 14, 10},
    {"replica", answer_router, 1 << 14, 5},
    {"command_line", read_command_line, 1 << 12},
};

}  // namespace

std::span<const Target> targets() {
  return kTargets;
}

const Target* find_target(std::string_view name) {
  for (const Target& target : kTargets) {
    if (target.name == name) return &target;
  }
  return nullptr;
}

}  // namespace cachalot::fuzz
