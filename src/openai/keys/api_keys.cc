#include "openai/keys/api_keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "config/yaml_keys.h"

namespace cachalot::openai {

namespace {

constexpr auto kLookInterval = std::chrono::milliseconds(500);
constexpr double kMinute = 60;
constexpr const char* kRefusals[] = {"requests", "tokens", "in_flight"};
constexpr int kMost = std::numeric_limits<int>::max();

// What is seen of a file: it changes with it.
std::string stamp_of(const std::string& path) {
  struct stat found{};
  if (stat(path.c_str(), &found) != 0) return "";
  return fmt::format("{} {} {}.{} {}.{}", found.st_ino, found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec,
                     found.st_ctim.tv_sec, found.st_ctim.tv_nsec);
}

// "1m30s", "20ms", as OpenAI tells times.
std::string duration_text(double seconds) {
  if (seconds < 1) return fmt::format("{}ms", static_cast<int>(std::ceil(std::max(seconds, 0.) * 1000)));
  const auto whole = static_cast<int64_t>(std::ceil(seconds));
  return whole < 60 ? fmt::format("{}s", whole) : fmt::format("{}m{}s", whole / 60, whole % 60);
}

Result<ApiKey> read_key(const YAML::Node& node, const std::string& path, size_t place) {
  YamlKeys keys(node, path, fmt::format("[{}].", place));
  ApiKey read;
  keys.read("name", read.name);
  keys.read("key", read.key);
  if (read.name.empty()) keys.fault("name", "a name, under which the key is counted");
  if (read.key.empty()) keys.fault("key", "the key that clients send");
  keys.read("requests-per-minute", read.limits.requests_per_minute, 0, kMost);
  keys.read("tokens-per-minute", read.limits.tokens_per_minute, 0, kMost);
  keys.read("in-flight", read.limits.in_flight, 0, kMost);
  if (const YAML::Node priorities = keys.find("priorities"); priorities.IsDefined()) {
    const bool is_pair = priorities.IsSequence() && priorities.size() == 2;
    const auto number = [&](size_t idx) {
      return is_pair && priorities[idx].IsScalar() ? parse_number<int>(priorities[idx].Scalar()) : std::nullopt;
    };
    const std::optional<int> least = number(0), most = number(1);
    if (!least || !most || *least > *most)
      keys.fault("priorities", "the least and the most of what `priority` may be, as [0, 10]");
    else
      read.limits.least_priority = *least, read.limits.most_priority = *most;
  }
  RETURN_IF_ERROR(keys.finish());
  return read;
}

}  // namespace

Result<std::vector<ApiKey>> read_api_key_file(const std::string& path) {
  const auto refused = [&](const std::string& what) {
    return make_parameter_error("--api-key-file", "--api-key-file {}: {}", quoted(path), what);
  };
  struct stat found{};
  if (stat(path.c_str(), &found) == 0 && (found.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    return refused("others than its owner may use it; chmod 600 keeps them out");
  const auto text = read_file(path, kMostHandwrittenBytes);
  if (!text) return refused(text.error().message);
  YAML::Node list;
  try {
    list = YAML::Load(*text);
  } catch (const YAML::Exception& exception) {
    return refused(fmt::format("is no YAML: {} at {}", escaped(exception.msg), yaml_place(exception.mark)));
  }
  if (!list.IsSequence()) return refused("must be a list of mappings with name and key");
  std::vector<ApiKey> keys;
  std::set<std::string> names, values;
  for (size_t place = 0; place < list.size(); place++) {
    if (!list[place].IsMap()) return refused(fmt::format("its entry {} is no mapping with name and key", place));
    auto key = read_key(list[place], path, place);
    if (!key) return refused(key.error().message);
    if (!names.insert(key->name).second) return refused(fmt::format("the name {} is there twice", quoted(key->name)));
    if (!values.insert(key->key).second)
      return refused(fmt::format("the key of {} is another one's, too", quoted(key->name)));
    keys.push_back(std::move(*key));
  }
  if (keys.empty()) return refused("holds no key; without any, everybody would come in");
  return keys;
}

std::optional<ApiError> check_priority(std::string_view priorities, int64_t priority) {
  const size_t space = std::min(priorities.find(' '), priorities.size());
  const auto least = parse_number<int>(priorities.substr(0, space));
  const auto most = parse_number<int>(priorities.substr(std::min(space + 1, priorities.size())));
  if (least && most && priority >= *least && priority <= *most) return std::nullopt;
  return ApiError(403,
                  fmt::format("this key may ask for a priority from {} to {}, not for {}", least.value_or(0),
                              most.value_or(0), priority),
                  "invalid_request_error", "priority", "priority_not_allowed");
}

ApiKeys::Guest::Guest(std::shared_ptr<const ApiKeys> keys, std::shared_ptr<Account> account, bool is_counted)
    : keys_(std::move(keys)),
      account_(std::move(account)),
      is_counted_(is_counted),
      speaks_for_others_(account_->is_of_command_line) {}

void ApiKeys::Guest::end() {
  const std::lock_guard lock(keys_->mutex_);
  if (!std::exchange(has_ended_, true) && is_counted_) account_->num_in_flight--;
}

void ApiKeys::Guest::add_fields(http::Headers& answer) const {
  const std::lock_guard lock(keys_->mutex_);
  if (is_counted_) add_rate_fields(*account_, answer);
}

std::string ApiKeys::Guest::priorities() const {
  const std::lock_guard lock(keys_->mutex_);
  return fmt::format("{} {}", account_->limits.least_priority, account_->limits.most_priority);
}

void ApiKeys::Guest::charge(int64_t num_prompt_tokens, int64_t num_generated_tokens) const {
  if (!is_counted_) return;
  const std::lock_guard lock(keys_->mutex_);
  account_->num_prompt_tokens += num_prompt_tokens;
  account_->num_generated_tokens += num_generated_tokens;
  account_->tokens_left -= static_cast<double>(num_prompt_tokens + num_generated_tokens);
}

ApiKeys::ApiKeys(std::vector<ApiKey> of_command_line, std::string file)
    : of_command_line_(std::move(of_command_line)), file_(std::move(file)) {}

std::shared_ptr<const ApiKeys> ApiKeys::of(const std::vector<std::string>& keys) {
  return *open(keys, "");
}

Result<std::shared_ptr<const ApiKeys>> ApiKeys::open(const std::vector<std::string>& keys, const std::string& file) {
  std::vector<ApiKey> all;
  for (const std::string& key : keys) all.push_back({fmt::format("api-key-{}", all.size() + 1), key, {}});
  std::shared_ptr<ApiKeys> table(new ApiKeys(all, file));
  const Time now = std::chrono::steady_clock::now();
  if (!file.empty()) {
    table->stamp_ = stamp_of(file);
    ASSIGN_OR_RETURN(const std::vector<ApiKey> of_file, table->read_file_of_keys());
    all.insert(all.end(), of_file.begin(), of_file.end());
  }
  table->set(all, now);
  return table;
}

Result<std::vector<ApiKey>> ApiKeys::read_file_of_keys() const {
  auto keys = read_api_key_file(file_);
  if (!keys) return keys;
  for (const ApiKey& key : *keys) {
    for (const ApiKey& other : of_command_line_) {
      if (key.name != other.name && key.key != other.key) continue;
      return make_parameter_error("--api-key-file", "--api-key-file {}: {} of {} is that of --api-key, too",
                                  quoted(file_), key.name == other.name ? "the name" : "the key", quoted(key.name));
    }
  }
  return keys;
}

// Keys are compared by what they hash to: all take the same time, however long they are and wherever they differ.
ApiKeys::Digest ApiKeys::digest_of(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

// A key that stays keeps what it has left and has done.
void ApiKeys::set(const std::vector<ApiKey>& keys, Time now) const {
  std::vector<std::shared_ptr<Account>> accounts;
  for (const ApiKey& key : keys) {
    const auto known = std::ranges::find(accounts_, key.name, [](const auto& account) { return account->name; });
    auto account = known == accounts_.end() ? std::make_shared<Account>() : *known;
    const bool is_new = known == accounts_.end();
    if (!is_new) fill(*account, now);
    const KeyLimits before = std::exchange(account->limits, key.limits);
    account->name = key.name;
    account->key = key.key;
    account->is_of_command_line = accounts.size() < of_command_line_.size();
    account->digest = digest_of(key.key);
    account->filled = now;
    if (is_new || before.requests_per_minute != key.limits.requests_per_minute)
      account->requests_left = key.limits.requests_per_minute;
    if (is_new || before.tokens_per_minute != key.limits.tokens_per_minute)
      account->tokens_left = key.limits.tokens_per_minute;
    accounts.push_back(std::move(account));
  }
  accounts_ = std::move(accounts);
}

void ApiKeys::fill(Account& account, Time now) {
  const double minutes = std::chrono::duration<double>(now - account.filled).count() / kMinute;
  const auto fill_up = [&](double& left, double limit) {
    left = std::min(left + std::max(minutes, 0.) * limit, limit);
  };
  fill_up(account.requests_left, account.limits.requests_per_minute);
  if (account.limits.tokens_per_minute > 0) fill_up(account.tokens_left, account.limits.tokens_per_minute);
  account.filled = std::max(account.filled, now);
}

void ApiKeys::refresh(Time now) const {
  if (file_.empty() || now - looked_ < kLookInterval) return;
  looked_ = now;
  std::string stamp = stamp_of(file_);
  if (stamp == stamp_) return;
  stamp_ = std::move(stamp);
  const auto of_file = read_file_of_keys();
  if (!of_file) return log::error("{}; the keys that were there before go on", of_file.error().message);
  std::vector<ApiKey> all = of_command_line_;
  all.insert(all.end(), of_file->begin(), of_file->end());
  set(all, now);
  log::info("--api-key-file {}: {} are in it now", quoted(file_), counted(std::ssize(*of_file), "key"));
}

ApiKeys::Entry ApiKeys::admit(const http::Request& head, std::span<const std::string_view> open_paths, Time now) const {
  const ErrorForm form = error_form(head);
  const bool is_open = std::ranges::find(open_paths, head.path) != open_paths.end();
  const Digest given = digest_of(is_open ? std::string_view() : api_key_of(head));
  const std::lock_guard lock(mutex_);
  refresh(now);
  if (accounts_.empty() || is_open) return nullptr;
  // The whole table, whether or not the key was there.
  const std::shared_ptr<Account>* found = nullptr;
  for (const auto& account : accounts_)
    if (CRYPTO_memcmp(given.data(), account->digest.data(), given.size()) == 0) found = &account;
  if (!found) {
    num_unknown_++;
    return std::unexpected(ApiError(401, "the API key is missing or wrong; send it as \"Authorization: Bearer KEY\"",
                                    "invalid_request_error", "", "invalid_api_key")
                               .to_response({}, form));
  }
  Account& account = **found;
  const bool is_counted = head.method == "POST";
  if (is_counted) {
    fill(account, now);
    if (auto refusal = refuse(account, form)) return std::unexpected(std::move(*refusal));
    account.num_requests++;
    account.num_in_flight++;
    account.requests_left -= account.limits.requests_per_minute > 0;
  }
  return std::make_shared<Guest>(shared_from_this(), *found, is_counted);
}

std::optional<http::Response> ApiKeys::refuse(Account& account, ErrorForm form) const {
  const KeyLimits& limits = account.limits;
  if (limits.in_flight > 0 && account.num_in_flight >= limits.in_flight)
    return too_much(account, kOfInFlight, fmt::format("requests at a time: limit {}", limits.in_flight), 1, form);
  if (limits.requests_per_minute > 0 && account.requests_left < 1 - 1e-9)
    return too_much(account, kOfRequests, fmt::format("requests per min (RPM): limit {}", limits.requests_per_minute),
                    (1 - account.requests_left) * kMinute / limits.requests_per_minute, form);
  if (limits.tokens_per_minute > 0 && account.tokens_left <= 0)
    return too_much(account, kOfTokens, fmt::format("tokens per min (TPM): limit {}", limits.tokens_per_minute),
                    (1 - account.tokens_left) * kMinute / limits.tokens_per_minute, form);
  return std::nullopt;
}

http::Response ApiKeys::too_much(Account& account, Refusal refusal, const std::string& what, double seconds,
                                 ErrorForm form) {
  account.num_refused[refusal]++;
  http::Response response = ApiError(429,
                                     fmt::format("rate limit reached for {} on {}; try again in {}", account.name, what,
                                                 duration_text(seconds)),
                                     refusal == kOfTokens ? "tokens" : "requests", "", "rate_limit_exceeded")
                                .to_response({}, form);
  response.headers.set("Retry-After", fmt::format("{}", static_cast<int64_t>(std::ceil(std::max(seconds, 1.)))));
  response.headers.set("retry-after-ms", fmt::format("{}", static_cast<int64_t>(std::ceil(seconds * 1000))));
  add_rate_fields(account, response.headers);
  return response;
}

void ApiKeys::add_rate_fields(const Account& account, http::Headers& fields) {
  const auto add = [&](const char* what, int limit, double left) {
    if (limit == 0) return;
    fields.set(fmt::format("x-ratelimit-limit-{}", what), fmt::format("{}", limit));
    fields.set(fmt::format("x-ratelimit-remaining-{}", what),
               fmt::format("{}", static_cast<int64_t>(std::max(left, 0.))));
    fields.set(fmt::format("x-ratelimit-reset-{}", what), duration_text((limit - left) * kMinute / limit));
  };
  add("requests", account.limits.requests_per_minute, account.requests_left);
  add("tokens", account.limits.tokens_per_minute, account.tokens_left);
}

std::string ApiKeys::any_key() const {
  const std::lock_guard lock(mutex_);
  return accounts_.empty() ? "" : accounts_.front()->key;
}

std::string ApiKeys::render_metrics() const {
  const std::lock_guard lock(mutex_);
  if (accounts_.empty()) return "";
  std::string text;
  const auto family = [&](std::string_view name, std::string_view kind, std::string_view help) {
    text += fmt::format("# HELP cachalot:{} {}\n# TYPE cachalot:{} {}\n", name, help, name, kind);
  };
  // A name is whatever its owner wrote.
  const auto label = [](const Account& account) {
    std::string escaped;
    for (const char letter : account.name)
      escaped += letter == '\n' ? "\\n" : letter == '"' ? "\\\"" : letter == '\\' ? "\\\\" : std::string(1, letter);
    return fmt::format("key=\"{}\"", escaped);
  };
  family("key_requests_total", "counter", "Requests of each API key that were let in");
  for (const auto& account : accounts_)
    text += fmt::format("cachalot:key_requests_total{{{}}} {}\n", label(*account), account->num_requests);
  family("key_tokens_total", "counter", "Tokens of each API key's prompts and answers");
  for (const auto& account : accounts_)
    text += fmt::format(
        "cachalot:key_tokens_total{{{0},kind=\"prompt\"}} {1}\n"
        "cachalot:key_tokens_total{{{0},kind=\"generation\"}} {2}\n",
        label(*account), account->num_prompt_tokens, account->num_generated_tokens);
  family("key_refused_total", "counter", "Requests of each API key that went beyond one of its limits");
  for (const auto& account : accounts_)
    for (size_t idx = 0; idx < account->num_refused.size(); idx++)
      text += fmt::format("cachalot:key_refused_total{{{},limit=\"{}\"}} {}\n", label(*account), kRefusals[idx],
                          account->num_refused[idx]);
  family("key_in_flight", "gauge", "Requests of each API key that are under way");
  for (const auto& account : accounts_)
    text += fmt::format("cachalot:key_in_flight{{{}}} {}\n", label(*account), account->num_in_flight);
  family("unknown_key_total", "counter", "Requests that brought no key, or one that opens nothing");
  return text + fmt::format("cachalot:unknown_key_total {}\n", num_unknown_);
}

}  // namespace cachalot::openai
