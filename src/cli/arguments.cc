#include "cli/arguments.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <boost/json.hpp>
#include <iterator>
#include <map>
#include <optional>
#include <ranges>
#include <utility>

#include "base/file.h"
#include "base/text.h"
#include "cli/argument_values.h"
#include "cli/flags.h"

namespace cachalot {
namespace {

namespace json = boost::json;

using WordSpan = std::span<const std::string>;

constexpr int kMostParts = 32;        // of a name with dots
constexpr size_t kLongestName = 100;  // that may be a misspelt one

class Reader {
 public:
  explicit Reader(const CLI::App& command)
      : command_(command),
        takes_vllm_(command.get_option_no_throw("--gpu-memory-utilization") != nullptr),
        takes_model_(command.get_name() == "serve" && takes_vllm_),  // not `bench serve`
        joins_words_(command.get_name() == "chat") {}

  Status read(WordSpan words) {
    while (!words.empty()) {
      const std::string& word = words.front();
      if (word == "--") {
        positional_.insert(positional_.end(), words.begin() + 1, words.end());
        break;
      }
      if (!is_flag(word)) {
        positional_.push_back(word);
        words = words.subspan(1);
        continue;
      }
      ASSIGN_OR_RETURN(const size_t num_words, read_flag(words));
      words = words.subspan(num_words);
    }
    return {};
  }

  Result<Arguments> finish() {
    if (!config_file_.empty()) RETURN_IF_ERROR(read_config_file());
    for (auto& [name, object] : objects_) RETURN_IF_ERROR(conclude_object(name, object));
    if (takes_model_) RETURN_IF_ERROR(place_model());
    if (joins_words_ && !positional_.empty()) {
      const std::string question = fmt::format("{}", fmt::join(std::exchange(positional_, {}), " "));
      if (find_given("--prompt"))
        return make_parameter_error("--prompt", "--prompt and {} are two questions; give one",
                                    cachalot::quoted(question));
      given_.push_back({"--prompt", {question}, nullptr});
    }
    Arguments arguments{.words = {}, .notices = std::move(notices_)};
    for (const Given& given : given_) {
      if (given.values.empty()) arguments.words.push_back(given.name);
      for (const std::string& value : given.values) {
        // CLI11 would take the next word for an empty value behind '='.
        if (value.empty()) {
          arguments.words.insert(arguments.words.end(), {given.name, value});
        } else {
          arguments.words.push_back(given.name.starts_with("--") ? given.name + "=" + value : given.name + value);
        }
      }
    }
    if (!positional_.empty()) arguments.words.emplace_back("--");
    std::ranges::copy(positional_, std::back_inserter(arguments.words));
    return arguments;
  }

 private:
  // A flag that this command has.
  struct Given {
    std::string name;
    std::vector<std::string> values;  // none: a switch
    const CLI::Option* option;
  };

  // --help, --log-level and --log-format stand at the program itself.
  const CLI::Option* find_own(const std::string& name) const {
    for (const CLI::App* app = &command_; app != nullptr; app = app->get_parent()) {
      if (const CLI::Option* option = app->get_option_no_throw(name)) return option;
    }
    return nullptr;
  }

  // How many words the flag takes, itself included.
  Result<size_t> read_flag(WordSpan words) {
    Spelled spelled = spell(words.front());
    if (!takes_vllm_ && !spelled.keys.empty()) return unknown(spelled);
    if (takes_model_ && spelled.name == "--config") return read_config_name(spelled, words);
    if (spelled.keys.empty()) {
      for (const std::string& name : {spelled.typed, spelled.name})
        if (const CLI::Option* option = find_own(name)) return read_own(*option, name, spelled, words);
    }
    if (takes_vllm_) {
      if (!spelled.name.starts_with("--")) {
        if (const VllmFlag* flag = find_short_vllm_flag(spelled.name)) return read_vllm(*flag, false, spelled, words);
      } else if (const VllmFlag* flag = find_vllm_flag(spelled.name.substr(2))) {
        return read_vllm(*flag, false, spelled, words);
      } else if (spelled.name.starts_with("--no-")) {
        flag = find_vllm_flag(spelled.name.substr(5));
        if (flag && flag->value == FlagValue::kSwitch) return read_vllm(*flag, true, spelled, words);
      }
    }
    // -t4 is -t 4.
    if (!spelled.name.starts_with("--") && spelled.name.size() > 2) {
      if (const CLI::Option* option = find_own(spelled.name.substr(0, 2));
          option && option->get_items_expected_max() > 0) {
        const std::string attached = words.front().substr(2);
        return read_own(*option, spelled.name.substr(0, 2), {spelled.name.substr(0, 2), "", "", attached}, words);
      }
    }
    return unknown(spelled);
  }

  std::unexpected<Error> unknown(const Spelled& spelled) const {
    std::vector<std::string> known;
    for (const CLI::App* app = &command_; app != nullptr; app = app->get_parent()) {
      for (const CLI::Option* option : app->get_options()) {
        if (option->get_group().empty()) continue;  // for this program's own use
        for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
      }
    }
    if (takes_model_)
      for (const VllmFlag& flag : vllm_flags()) known.push_back(fmt::format("--{}", flag.name));
    const bool is_name = spelled.name.starts_with("--") && spelled.name.size() < kLongestName;
    const std::string nearest = is_name ? nearest_name(spelled.name, known) : std::string();
    return make_parameter_error(spelled.typed, "{}{}: no such flag of `{}`{}", where_,
                                escaped(spelled.typed, kLongestName), path(),
                                nearest.empty() ? "" : fmt::format("; the nearest is {}", nearest));
  }

  // "cachalot bench model"
  std::string path() const {
    std::string path = command_.get_name();
    for (const CLI::App* app = command_.get_parent(); app != nullptr; app = app->get_parent())
      path = app->get_name() + " " + path;
    return path;
  }

  std::unexpected<Error> wrong(const std::string& name, const std::string& value, std::string_view right) const {
    return make_parameter_error(name, "{}{} {}: must be {}", where_, name, cachalot::quoted(value), right);
  }

  // The values of a flag; `words` begins with it. Of a switch none, or the one word that says whether.
  Result<std::vector<std::string>> take_values(const Spelled& spelled, WordSpan words, bool is_list) const {
    if (spelled.value) return std::vector{*spelled.value};
    std::vector<std::string> values;
    for (const std::string& word : words.subspan(1)) {
      if (is_flag(word) || (!is_list && !values.empty())) break;
      values.push_back(word);
    }
    if (!values.empty()) return values;
    return make_parameter_error(
        spelled.typed, "{}{}: a value is missing{}", where_, spelled.typed,
        words.size() > 1 ? fmt::format(" before {0} (one with a dash: {1}={0})", words[1], spelled.typed) : "");
  }

  Result<std::optional<bool>> take_switch(const Spelled& spelled, WordSpan words, size_t& num_words) const {
    if (spelled.value) {
      const std::optional<bool> value = parse_switch(*spelled.value);
      if (!value) return wrong(spelled.typed, *spelled.value, "true or false, or absent: it is a switch");
      return value;
    }
    if (!takes_vllm_ || words.size() < 2 || !has_word("true false True False", words[1])) return std::optional<bool>();
    num_words = 2;
    return parse_switch(words[1]);
  }

  std::string opposite(const std::string& name) const {
    return name.starts_with("--no-") ? "--" + name.substr(5) : "--no-" + name.substr(2);
  }

  Result<size_t> read_own(const CLI::Option& option, const std::string& name, const Spelled& spelled, WordSpan words) {
    size_t num_words = 1;
    if (option.get_items_expected_max() == 0) {
      ASSIGN_OR_RETURN(const std::optional<bool> value, take_switch(spelled, words, num_words));
      if (value.value_or(true)) {
        add({name, {}, &option});
      } else {
        forget(name);
        if (find_own(opposite(name))) add({opposite(name), {}, find_own(opposite(name))});
      }
      return num_words;
    }
    ASSIGN_OR_RETURN(std::vector<std::string> values, take_values(spelled, words, option.get_items_expected_max() > 1));
    if (!spelled.value) num_words += values.size();
    if (takes_vllm_) RETURN_IF_ERROR(adapt(name, values));
    if (!values.empty()) add({name, std::move(values), &option});
    return num_words;
  }

  // Values of vLLM that flags of the same name have here under other words; no values: as if it were not given.
  Status adapt(const std::string& name, std::vector<std::string>& values) {
    const VllmFlag* flag = name.starts_with("--") ? find_vllm_flag(name.substr(2)) : nullptr;
    if (!flag || values.size() != 1) return {};
    const bool is_number = flag->value == FlagValue::kWhole || flag->value == FlagValue::kReal;
    if (is_number && values[0] == "None") {
      values.clear();
    } else if (name == "--dtype" && (values[0] == "half" || values[0] == "float16")) {
      notices_.push_back(fmt::format("--dtype {}: computed in bfloat16 (float32 is the exact one)", values[0]));
      values[0] = "bfloat16";
    } else if (flag->value == FlagValue::kJson) {
      ASSIGN_OR_RETURN(json::object object, parse_object(name, values[0]));
      for (auto& [key, value] : object) objects_["--" + std::string(flag->name)][key] = std::move(value);
      values.clear();
    }
    return {};
  }

  Result<json::object> parse_object(const std::string& typed, const std::string& text) const {
    boost::system::error_code error;
    const json::value value = json::parse(text, error);
    if (error || !value.is_object()) return wrong(typed, text, R"(a JSON object: {"key": 1})");
    return value.get_object();
  }

  Result<size_t> read_vllm(const VllmFlag& flag, bool negated, const Spelled& spelled, WordSpan words) {
    if (!spelled.keys.empty() && flag.value != FlagValue::kJson) return unknown(spelled);
    if (!spelled.keys.empty()) {
      if (std::ranges::count(spelled.keys, '.') >= kMostParts)
        return make_parameter_error(spelled.name, "{}{}: more than {} parts", where_, spelled.name, kMostParts);
      ASSIGN_OR_RETURN(const std::vector<std::string> values, take_values(spelled, words, false));
      const std::string name = fmt::format("--{}", flag.name);
      const std::string& value = values[0];
      for (size_t begin = 0, end = 0; begin <= value.size(); begin = end + 1) {
        end = spelled.keys.ends_with('+') ? std::min(value.find(',', begin), value.size()) : value.size();
        merge(objects_[name], spelled.keys, json_of(value.substr(begin, end - begin)));
      }
      return spelled.value ? 1 : 2;
    }
    if (flag.fate == FlagFate::kWorks) {
      std::string own = fmt::format("--{}", flag.own_name.empty() ? flag.name : flag.own_name);
      if (negated) own = opposite(own);
      const CLI::Option* option = find_own(own);
      return option ? read_own(*option, own, spelled, words) : unknown(spelled);
    }
    size_t num_words = 1;
    std::string value;
    if (flag.value == FlagValue::kSwitch) {
      ASSIGN_OR_RETURN(const std::optional<bool> given, take_switch(spelled, words, num_words));
      value = given.value_or(true) != negated ? "true" : "false";
    } else if (flag.value == FlagValue::kOptional && !spelled.value && (words.size() == 1 || is_flag(words[1]))) {
      value = "";
    } else {
      ASSIGN_OR_RETURN(const std::vector<std::string> values,
                       take_values(spelled, words, flag.value == FlagValue::kList));
      if (!spelled.value) num_words += values.size();
      value = fmt::format("{}", fmt::join(values, " "));
      RETURN_IF_ERROR(check_kind(flag, spelled.typed, value));
    }
    RETURN_IF_ERROR(conclude(flag, spelled.typed, value));
    return num_words;
  }

  Status check_kind(const VllmFlag& flag, const std::string& typed, const std::string& value) const {
    if (value.empty() || value == "None" || value == "auto") return {};
    if (flag.value == FlagValue::kWhole && !parse_whole_number(value)) return wrong(typed, value, "a whole number");
    if (flag.value == FlagValue::kReal && !parse_real_number(value)) return wrong(typed, value, "a number");
    boost::system::error_code error;
    if (flag.value == FlagValue::kJson) json::parse(value, error);
    if (error) return wrong(typed, value, R"(JSON: {"key": 1})");
    return {};
  }

  // Of a flag that does not work here.
  Status conclude(const VllmFlag& flag, const std::string& typed, const std::string& value) {
    const bool asks_nothing = flag.value != FlagValue::kOptional && (value.empty() || value == "None");
    if (asks_nothing || is_neutral(flag, value)) return {};
    if (flag.fate == FlagFate::kTaken) {
      notices_.push_back(fmt::format("{}{} is accepted and changes nothing: {}", where_, typed, flag.sentence));
      return {};
    }
    std::string given, right;
    if (flag.value != FlagValue::kSwitch) {
      given = " " + cachalot::quoted(value);
      for (const char letter : flag.neutral) right += letter == '|' ? ", " : std::string(1, letter);
      if (!right.empty()) right = fmt::format(" (what it may be: {})", right);
    }
    return make_parameter_error(typed, "{}{}{} cannot be had: {}{}", where_, typed, given, flag.sentence, right);
  }

  Status conclude_object(const std::string& name, const json::object& object) {
    const VllmFlag* flag = find_vllm_flag(name.substr(2));
    if (flag->fate != FlagFate::kWorks) return conclude(*flag, name, json::serialize(object));
    if (const CLI::Option* option = find_own(name)) {
      given_.push_back({name, {json::serialize(object)}, option});
      return {};
    }
    return unknown({name, name, "", std::nullopt});
  }

  // Of what can be given once, the last holds; a switch and its opposite are one thing.
  void forget(const std::string& name) {
    const CLI::Option* const option = find_own(name);
    const CLI::Option* const other = name.starts_with("--") ? find_own(opposite(name)) : nullptr;
    std::erase_if(
        given_, [&](const Given& given) { return given.option && (given.option == option || given.option == other); });
  }
  void add(Given given) {
    const bool is_list = given.option->get_items_expected_max() > 1;
    if (takes_vllm_ && !is_list) {
      const auto before = std::ranges::find(given_, given.option, &Given::option);
      if (before != given_.end() && before->values != given.values)
        notices_.push_back(
            fmt::format("{} is given twice, and the last holds: {}", given.name, fmt::join(given.values, " ")));
      forget(given.name);
    }
    given_.push_back(std::move(given));
  }
  const Given* find_given(const std::string& name) const {
    const CLI::Option* const option = find_own(name);
    const auto found = std::ranges::find(given_, option, &Given::option);
    return found == given_.end() ? nullptr : &*found;
  }

  // `serve MODEL`, and what a folder's name behind it may mean.
  Status place_model() {
    const Given* flag = find_given("--model");
    if (positional_.empty()) {
      if (flag || find_given("--help")) return {};
      return make_parameter_error("--model", "serve: which model? `cachalot serve FOLDER`, or --model FOLDER");
    }
    const std::string& model = positional_.front();
    if (positional_.size() > 1)
      return make_error(ErrorCode::kInvalidArgument, "not expected behind the model {}: {}", cachalot::quoted(model),
                        fmt::join(positional_ | std::views::drop(1), " "));
    if (flag && flag->values.front() != model)
      return make_parameter_error("--model", "two models: {}, and --model {}", cachalot::quoted(model),
                                  cachalot::quoted(flag->values.front()));
    if (!flag) given_.push_back({"--model", {model}, find_own("--model")});
    positional_.clear();
    return {};
  }

  Result<size_t> read_config_name(const Spelled& spelled, WordSpan words) {
    ASSIGN_OR_RETURN(const std::vector<std::string> values, take_values(spelled, words, false));
    if (!where_.empty() || !config_file_.empty())
      return make_parameter_error("--config", "{}--config {}: one file of flags, not two", where_,
                                  cachalot::quoted(values[0]));
    config_file_ = values[0];
    return spelled.value ? 1 : 2;
  }

  // Its flags go before those of the command line, which then hold.
  Status read_config_file() {
    const Result<std::string> text = read_file(config_file_, kMostHandwrittenBytes);
    if (!text) return make_parameter_error("--config", "--config: {}", escaped(text.error().message, 400));
    Reader reader(command_);
    try {
      const YAML::Node top = YAML::Load(*text);
      if (!is_small(top))
        return make_parameter_error("--config", "{}: its aliases hold more than {} values, or one another",
                                    config_file_, kMostConfigNodes);
      if (!top.IsMap()) return make_parameter_error("--config", "{}: must be a mapping of flags", config_file_);
      for (const auto& entry : top) RETURN_IF_ERROR(reader.read_entry(config_file_, entry.first, entry.second));
    } catch (const YAML::Exception& error) {
      return make_parameter_error("--config", "{}:{}: {}", config_file_, error.mark.line + 1, escaped(error.msg));
    }
    return take_over(std::move(reader));
  }
  Status read_entry(const std::string& path, const YAML::Node& key, const YAML::Node& value) {
    where_ = fmt::format("{}:{}: ", path, key.Mark().line + 1);
    if (!key.IsScalar()) return make_parameter_error("--config", "{}a flag's name is a word", where_);
    std::vector<std::string> words{"--" + key.Scalar()};
    if (value.IsSequence()) {
      for (const YAML::Node& item : value)
        words.push_back(item.IsScalar() ? item.Scalar() : json::serialize(json_of(item)));
      if (words.size() == 1) return {};
    } else if (value.IsMap()) {
      words[0] += "=" + json::serialize(json_of(value));
    } else if (value.IsScalar()) {
      words[0] += "=" + value.Scalar();
    } else {
      return {};  // null: not given
    }
    return read(words);
  }
  Status take_over(Reader file) {
    for (Given& given : file.given_) {
      if (takes_model_ && given.name == "--model" && !positional_.empty()) continue;
      const bool overruled = std::ranges::any_of(
          given_, [&](const Given& own) { return own.option == given.option || own.name == opposite(given.name); });
      if (!overruled) given_.insert(given_.begin(), std::move(given));
    }
    for (auto& [name, object] : file.objects_) {
      for (auto& [key, value] : object) objects_[name].emplace(key, std::move(value));
    }
    notices_.insert(notices_.begin(), file.notices_.begin(), file.notices_.end());
    return {};
  }

  const CLI::App& command_;
  const bool takes_vllm_, takes_model_, joins_words_;
  std::string where_;  // "FILE:LINE: " while a file of flags is read
  std::string config_file_;
  std::vector<Given> given_;
  std::map<std::string, json::object> objects_;  // JSON flags, put together from their parts
  std::vector<std::string> positional_, notices_;
};

}  // namespace

Result<Arguments> read_arguments(const CLI::App& command, std::span<const std::string> words) {
  Reader reader(command);
  const Status status = reader.read(words);
  Result<Arguments> arguments = status ? reader.finish() : std::unexpected(status.error());
  // Whatever bytes somebody typed: what is said of them may be shown.
  if (!arguments) {
    arguments.error().message = escaped(arguments.error().message);
  } else {
    for (std::string& notice : arguments->notices) notice = escaped(notice);
  }
  return arguments;
}

}  // namespace cachalot
